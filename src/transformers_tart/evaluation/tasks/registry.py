"""The tasks of the paper, of RAFT, and some of more than two classes, on the Hub.

arXiv 2306.07536, appendix; RAFT: arXiv 2109.14076. The paper's YouTube task has no data set of its authors on the Hub:
give its file, as any other.
"""

from dataclasses import dataclass, replace


SEEDS = (42, 69, 128, 512, 1024)  # of the published code


@dataclass(frozen=True)
class TaskSource:
    """Where a task is and how its columns are called.

    Attributes:
        path: id of a data set on the Hub.
        config: its configuration, where it has several.
        revision: branch, tag or commit; the newest when not given.
        text: column of texts.
        text_pair: column of second texts.
        label: column of labels: names, numbers, or shares that `threshold` makes two classes of.
        train: split for support sets.
        test: split that is classified; `None`: three quarters of `train`, as the published code has it.
        positive: name of one class against all others.
        threshold: from where on a share counts as the second class.
    """

    path: str
    config: str | None = None
    revision: str | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    train: str = "train"
    test: str | None = "test"
    positive: str | None = None
    threshold: float | None = None


AG_NEWS = TaskSource("fancyzhx/ag_news")
DBPEDIA = TaskSource("fancyzhx/dbpedia_14", text="content")
PAPER = {
    "sst2": TaskSource("stanfordnlp/sst2", text="sentence", test="validation"),
    "rotten_tomatoes": TaskSource("cornell-movie-review-data/rotten_tomatoes"),
    "sms_spam": TaskSource("ucirvine/sms_spam", text="sms", test=None),
    "imdb": TaskSource("stanfordnlp/imdb"),
    "civil_comments": TaskSource("google/civil_comments", label="toxicity", threshold=0.5),
    **{f"ag_news-{name.lower()}": replace(AG_NEWS, positive=name) for name in ("World", "Sports", "Business")},
    "ag_news-scitech": replace(AG_NEWS, positive="Sci/Tech"),
    **{
        f"dbpedia_14-{name.lower()}": replace(DBPEDIA, positive=name)
        for name in ("Company", "EducationalInstitution", "Artist", "Athlete")
    },
}
RAFT_NAMES = (
    "ade_corpus_v2",
    "banking_77",
    "neurips_impact_statement_risks",
    "one_stop_english",
    "overruling",
    "semiconductor_org_types",
    "systematic_review_inclusion",
    "tai_safety_research",
    "terms_of_service",
    "tweet_eval_hate",
    "twitter_complaints",
)
# the labels of its test split are secret: three quarters of the 50 known ones are classified
RAFT = {
    f"raft-{name}": TaskSource("ought/raft", config=name, text="Sentence", label="Label", test=None)
    for name in RAFT_NAMES
}
MULTICLASS = {
    "ag_news": AG_NEWS,
    "dbpedia_14": DBPEDIA,
    "trec": TaskSource("CogComp/trec", label="coarse_label"),
    "emotion": TaskSource("dair-ai/emotion", config="split"),
    "banking77": TaskSource("PolyAI/banking77"),
    "20newsgroups": TaskSource("SetFit/20_newsgroups", label="label_text"),
    "tweet_sentiment": TaskSource("cardiffnlp/tweet_eval", config="sentiment"),
}
GROUPS: dict[str, tuple[str, ...]] = {"paper": tuple(PAPER), "raft": tuple(RAFT), "multiclass": tuple(MULTICLASS)}
TASKS: dict[str, TaskSource] = {**PAPER, **RAFT, **MULTICLASS}

__all__ = ["GROUPS", "SEEDS", "TASKS", "TaskSource"]
