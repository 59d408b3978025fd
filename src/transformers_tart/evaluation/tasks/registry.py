"""The tasks of the paper, of RAFT, some of more than two classes, and those with images and recordings, on the Hub.

arXiv 2306.07536, appendix; RAFT: arXiv 2109.14076. The paper's YouTube task has no data set of its authors on the Hub:
give its file, as any other.

The class pairs of images and recordings are those that the published code classifies: labels 0 and 1 of each data set
in its evaluation scripts, digits 2 and 4 in its notebook. As there, the class that is named first has the label 1. The
published code reads version 0.01 of Speech Commands; here it is 0.02, with more recordings of the same words.
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
        modality: what is classified: `"text"`, `"image"` or `"audio"`.
        input: column of images or recordings; named as the modality when not given.
        classes: the classes that are kept, in the order of their labels; all when not given. For images and audio.
        data_dir: folder of the repository that holds the data, where a revision knows no configurations.
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
    modality: str = "text"
    input: str | None = None
    classes: tuple[str, ...] | None = None
    data_dir: str | None = None


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
MNIST = TaskSource("ylecun/mnist", modality="image")
CIFAR10 = TaskSource("uoft-cs/cifar10", modality="image", input="img")
# The words that its test split is made for. The repository's own branch is a loading script, which `datasets` does not
# run any more; the branch of its conversion knows folders instead of configurations.
SPEECH_COMMANDS = TaskSource(
    "google/speech_commands",
    revision="refs/convert/parquet",
    data_dir="v0.02",
    modality="audio",
    classes=("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
)


def _pair(source: TaskSource, first: str, second: str) -> TaskSource:
    """Two classes of a data set, of which the published code gives the label 1 to the first."""
    return replace(source, classes=(second, first))


VISION = {
    "mnist-0_vs_1": _pair(MNIST, "0", "1"),
    "mnist-2_vs_4": _pair(MNIST, "2", "4"),
    "cifar10-airplane_vs_automobile": _pair(CIFAR10, "airplane", "automobile"),
    "mnist": MNIST,
    "cifar10": CIFAR10,
}
AUDIO = {
    "speech_commands-yes_vs_no": _pair(SPEECH_COMMANDS, "yes", "no"),
    "speech_commands": SPEECH_COMMANDS,
    "fsdd": TaskSource("mteb/free-spoken-digit-dataset", modality="audio"),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "paper": tuple(PAPER),
    "raft": tuple(RAFT),
    "multiclass": tuple(MULTICLASS),
    "vision": tuple(VISION),
    "audio": tuple(AUDIO),
}
TASKS: dict[str, TaskSource] = {**PAPER, **RAFT, **MULTICLASS, **VISION, **AUDIO}

__all__ = ["GROUPS", "SEEDS", "TASKS", "TaskSource"]
