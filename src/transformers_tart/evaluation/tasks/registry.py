"""Registry of tasks on the Hub: those of the paper and of RAFT, multiclass tasks, images and recordings.

Sources: arXiv 2306.07536, appendix; RAFT: arXiv 2109.14076. The paper's YouTube task has no data set of its authors on
the Hub; pass its file.

The class pairs of images and recordings are those of the published code: labels 0 and 1 of each data set in its
evaluation scripts, digits 2 and 4 in its notebook. As there, the class that is named first has the label 1. The
published code reads version 0.01 of Speech Commands, this registry version 0.02 with more recordings of the words.
"""

from dataclasses import dataclass, replace

from transformers_tart.inputs.modality import AUDIO, IMAGE, TEXT, Modality


SEEDS = (42, 69, 128, 512, 1024)  # of the published code


@dataclass(frozen=True)
class TaskSource:
    """Data set of a task on the Hub, and the names of its columns."""

    path: str
    config: str | None = None
    revision: str | None = None  # the newest by default
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"  # column of names, numbers, or shares that `threshold` divides into two classes
    train: str = "train"
    test: str | None = "test"  # `None` for three quarters of `train`, as in the published code
    positive: str | None = None  # name of the class that is classified against all others
    threshold: float | None = None  # smallest share of the second class
    modality: Modality = TEXT
    input: str | None = None  # column of images or recordings; named as the modality by default
    classes: tuple[str, ...] | None = None  # classes to keep, in the order of their labels; all by default
    data_dir: str | None = None  # folder of the data in the repository, for revisions without configurations


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
    *("ade_corpus_v2", "banking_77", "neurips_impact_statement_risks", "one_stop_english", "overruling"),
    *("semiconductor_org_types", "systematic_review_inclusion", "tai_safety_research", "terms_of_service"),
    *("tweet_eval_hate", "twitter_complaints"),
)
# the labels of its test split are secret, so three quarters of the 50 labeled texts are classified
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
MNIST = TaskSource("ylecun/mnist", modality=IMAGE)
CIFAR10 = TaskSource("uoft-cs/cifar10", modality=IMAGE, input="img")
# The words of its test split. The main branch holds a loading script, which `datasets` no longer runs; the branch of
# its conversion has folders instead of configurations.
SPEECH_COMMANDS = TaskSource(
    "google/speech_commands",
    revision="refs/convert/parquet",
    data_dir="v0.02",
    modality=AUDIO,
    classes=("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
)


def _pair(source: TaskSource, first: str, second: str) -> TaskSource:
    """Return a task of two classes, of which the first has the label 1 as in the published code."""
    return replace(source, classes=(second, first))


VISION_TASKS = {
    "mnist-0_vs_1": _pair(MNIST, "0", "1"),
    "mnist-2_vs_4": _pair(MNIST, "2", "4"),
    "cifar10-airplane_vs_automobile": _pair(CIFAR10, "airplane", "automobile"),
    "mnist": MNIST,
    "cifar10": CIFAR10,
}
AUDIO_TASKS = {
    "speech_commands-yes_vs_no": _pair(SPEECH_COMMANDS, "yes", "no"),
    "speech_commands": SPEECH_COMMANDS,
    "fsdd": TaskSource("mteb/free-spoken-digit-dataset", modality=AUDIO),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "paper": tuple(PAPER),
    "raft": tuple(RAFT),
    "multiclass": tuple(MULTICLASS),
    "vision": tuple(VISION_TASKS),
    "audio": tuple(AUDIO_TASKS),
}
TASKS: dict[str, TaskSource] = {**PAPER, **RAFT, **MULTICLASS, **VISION_TASKS, **AUDIO_TASKS}
