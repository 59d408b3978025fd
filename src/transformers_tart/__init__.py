"""Few-shot classification with a frozen model: TART reasoners for transformers.

Importing this package registers its models and its pipeline with transformers, and does nothing else.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)
from transformers.pipelines import PIPELINE_REGISTRY

from transformers_tart.configuration_tart import TartAudioConfig, TartConfig, TartImageConfig, TartReasonerConfig
from transformers_tart.inputs.views import View
from transformers_tart.loading.embedded import MINI
from transformers_tart.modeling_tart import (
    PipelineModel,
    TartForAudioClassification,
    TartForImageClassification,
    TartForSequenceClassification,
)
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.support import SupportSet


__version__ = "0.2.0"

AutoConfig.register("tart", TartConfig)
AutoConfig.register("tart_image", TartImageConfig)
AutoConfig.register("tart_audio", TartAudioConfig)
AutoConfig.register("tart_reasoner", TartReasonerConfig)
AutoModel.register(TartReasonerConfig, TartReasoner)
AutoModel.register(TartConfig, TartForSequenceClassification)
AutoModel.register(TartImageConfig, TartForImageClassification)
AutoModel.register(TartAudioConfig, TartForAudioClassification)
AutoModelForSequenceClassification.register(TartConfig, TartForSequenceClassification)
AutoModelForImageClassification.register(TartImageConfig, TartForImageClassification)
AutoModelForAudioClassification.register(TartAudioConfig, TartForAudioClassification)
PIPELINE_REGISTRY.register_pipeline(
    "tart-classification",
    pipeline_class=TartClassificationPipeline,
    pt_model=PipelineModel,
    default={"model": (str(MINI), None)},
    type="text",
)

__all__ = [
    "SupportSet",
    "TartAudioConfig",
    "TartClassificationPipeline",
    "TartConfig",
    "TartForAudioClassification",
    "TartForImageClassification",
    "TartForSequenceClassification",
    "TartImageConfig",
    "TartReasoner",
    "TartReasonerConfig",
    "View",
]
