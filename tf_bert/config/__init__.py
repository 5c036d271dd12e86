"""Every setting of every command, and how it is read.

`preparation.py` and `quality.py` are about data, `settings.py`, `optimization.py` and `stages.py` about models and
runs, `finetuning.py` about finetuning, `sweep.py` about sweeps of it, `serving.py` about the local server; `reading.py`
reads them all, and `mounts.py` knows which part of a path an attempt of a job does not share with the next.
"""

from tf_bert.config.finetuning import (
    CustomTaskConfig,
    FetchGlueConfig,
    FinetuneConfig,
    GlueConfig,
    LearningConfig,
    RunConfig,
    SpanConfig,
)
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
from tf_bert.config.serving import ServeConfig
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
from tf_bert.config.sweep import BanditConfig, ParameterConfig, SweepConfig

__all__ = [
    "BanditConfig",
    "BertConfig",
    "CadenceConfig",
    "CorpusConfig",
    "CustomTaskConfig",
    "DataConfig",
    "FetchGlueConfig",
    "FetchWikipediaConfig",
    "FinetuneConfig",
    "GlueConfig",
    "LearningConfig",
    "OptimizerConfig",
    "ParameterConfig",
    "PrepareConfig",
    "PretrainConfig",
    "QualityConfig",
    "RunConfig",
    "ServeConfig",
    "SpanConfig",
    "StageConfig",
    "StageRun",
    "SweepConfig",
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
