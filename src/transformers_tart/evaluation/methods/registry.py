"""Methods by name: a new method is a function and a line here."""

from transformers_tart.configuration_tart import PROTOCOLS
from transformers_tart.evaluation.methods.base import Method
from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.evaluation.methods.composed import probe, tart, zero_shot
from transformers_tart.evaluation.methods.fine_tuning import fine_tune
from transformers_tart.evaluation.methods.plain import majority, tfidf
from transformers_tart.evaluation.methods.prompting import calibrated_prompting, prompting
from transformers_tart.evaluation.methods.setfit import setfit


ZERO_SHOT = "zero_shot"
PROMPTING: dict[str, Method] = {"prompting": prompting, "prompting_calibrated": calibrated_prompting}
METHODS: dict[str, Method] = {
    "tart": tart(),
    "tart_without_hints": tart(hints=None),
    ZERO_SHOT: zero_shot,
    **{f"tart_{protocol}": tart(protocol) for protocol in PROTOCOLS if protocol != "stream"},
    **PROMPTING,
    **{name: probe(baseline) for name, baseline in BASELINES.items()},
    "fine_tune": fine_tune("full"),
    "fine_tune_head": fine_tune("head"),
    "fine_tune_last": fine_tune("last"),
    "lora": fine_tune("lora"),
    "setfit": setfit,
    "tfidf": tfidf,
    "majority": majority,
}
# Methods that answer without examples.
WITHOUT_EXAMPLES = ("tart", ZERO_SHOT, *PROMPTING)
