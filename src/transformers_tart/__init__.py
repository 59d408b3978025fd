"""Few-shot classification with a frozen model: TART reasoners for transformers.

Importing this package registers its models and its pipeline with transformers, and does nothing else.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.pipelines import PIPELINE_REGISTRY

from transformers_tart.backbones import MINI
from transformers_tart.configuration_tart import TartConfig, TartReasonerConfig
from transformers_tart.modeling_reasoner import TartReasoner
from transformers_tart.modeling_tart import TartForSequenceClassification
from transformers_tart.pipeline_tart import PipelineModel, TartClassificationPipeline
from transformers_tart.support import SupportSet


__version__ = "0.1.0"

AutoConfig.register("tart", TartConfig)
AutoConfig.register("tart_reasoner", TartReasonerConfig)
AutoModel.register(TartReasonerConfig, TartReasoner)
AutoModel.register(TartConfig, TartForSequenceClassification)
AutoModelForSequenceClassification.register(TartConfig, TartForSequenceClassification)
PIPELINE_REGISTRY.register_pipeline(
    "tart-classification",
    pipeline_class=TartClassificationPipeline,
    pt_model=PipelineModel,
    default={"model": (str(MINI), None)},
    type="text",
)

__all__ = [
    "SupportSet",
    "TartClassificationPipeline",
    "TartConfig",
    "TartForSequenceClassification",
    "TartReasoner",
    "TartReasonerConfig",
]
