"""Writes docs/configuration.md from the configuration's dataclasses; a test holds the file against them.

python scripts/write_configuration.py
"""

from pathlib import Path

from tf_bert.config import (
    FetchGlueConfig,
    FetchWikipediaConfig,
    FinetuneConfig,
    GlueConfig,
    PrepareConfig,
    PretrainConfig,
    ServeConfig,
    SweepConfig,
    VocabReportConfig,
    VocabTrainConfig,
    describe_fields,
)

PATH = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

INTRODUCTION = """# Configuration reference

Generated from the dataclasses in `tf_bert/config` by `python scripts/write_configuration.py`.

Every command below takes `--config FILE.yaml` and `--FIELD VALUE`; a field on the command line wins over the file. In
YAML, dots are groups:

```yaml
model:
  hidden_size: 256
training:
  num_train_steps: 20000
```

is the same as `--model.hidden_size 256 --training.num_train_steps 20000`. An unknown key is an error.
"""

COMMANDS = {
    "tf-bert fetch wikipedia": FetchWikipediaConfig,
    "tf-bert fetch glue": FetchGlueConfig,
    "tf-bert vocab train": VocabTrainConfig,
    "tf-bert vocab report": VocabReportConfig,
    "tf-bert prepare": PrepareConfig,
    "tf-bert pretrain": PretrainConfig,
    "tf-bert finetune": FinetuneConfig,
    "tf-bert glue": GlueConfig,
    "tf-bert sweep": SweepConfig,
    "tf-bert serve": ServeConfig,
}


def render() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for command, cls in COMMANDS.items():
        parts.append(f"\n## `{command}`\n\n| field | default | meaning |\n|---|---|---|\n")
        parts += [f"| `{field.key}` | `{field.default}` | {field.doc} |\n" for field in describe_fields(cls)]
    return "".join(parts)


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
