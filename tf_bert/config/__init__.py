"""Every setting of every command: what there is (`settings.py`) and how it is read (`reading.py`)."""

from tf_bert.config.quality import QualityConfig
from tf_bert.config.reading import describe_fields, from_dict, load, load_bert_config, to_dict
from tf_bert.config.settings import (
    BertConfig,
    CadenceConfig,
    CorpusConfig,
    DataConfig,
    FetchWikipediaConfig,
    OptimizerConfig,
    PrepareConfig,
    PretrainConfig,
    TrainingConfig,
    VocabReportConfig,
    VocabTrainConfig,
    accumulation_steps,
)

__all__ = [
    "BertConfig",
    "CadenceConfig",
    "CorpusConfig",
    "DataConfig",
    "FetchWikipediaConfig",
    "OptimizerConfig",
    "PrepareConfig",
    "PretrainConfig",
    "QualityConfig",
    "TrainingConfig",
    "VocabReportConfig",
    "VocabTrainConfig",
    "accumulation_steps",
    "describe_fields",
    "from_dict",
    "load",
    "load_bert_config",
    "to_dict",
]
