"""Every setting of every command, and how it is read.

`preparation.py` and `quality.py` are about data, `settings.py`, `optimization.py` and `stages.py` about models and
runs; `reading.py` reads them all.
"""

from tf_bert.config.optimization import OptimizerConfig
from tf_bert.config.preparation import (
    CorpusConfig,
    FetchWikipediaConfig,
    PrepareConfig,
    VocabReportConfig,
    VocabTrainConfig,
)
from tf_bert.config.quality import QualityConfig
from tf_bert.config.reading import describe_fields, from_dict, load, load_bert_config, to_dict
from tf_bert.config.settings import (
    BertConfig,
    CadenceConfig,
    DataConfig,
    PretrainConfig,
    StageConfig,
    TrainingConfig,
    accumulation_steps,
)
from tf_bert.config.stages import StageRun, stage_runs

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
    "StageConfig",
    "StageRun",
    "TrainingConfig",
    "VocabReportConfig",
    "VocabTrainConfig",
    "accumulation_steps",
    "describe_fields",
    "from_dict",
    "load",
    "load_bert_config",
    "stage_runs",
    "to_dict",
]
