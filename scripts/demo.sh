#!/usr/bin/env bash
# The whole pipeline on a real excerpt of the English Wikipedia: dump -> vocabulary -> shards -> BERT-tiny.
# Every step is a command that works on your own corpus; interrupted, the script goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PWD/.venv/bin:$PATH

run() {
  echo
  echo "\$ $*"
  "$@"
}

# gensim ships a real dump excerpt: 211 pages, 106 of them articles, 6.3 MB of XML.
dump=$(python - <<'PY'
from importlib.util import find_spec
from pathlib import Path

name = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
print(Path(find_spec("gensim").origin).parent / "test" / "test_data" / name)
PY
)
mkdir -p data
ln -sf "$dump" data/enwiki-excerpt.xml.bz2

started=$SECONDS
run tf-bert vocab train --input data/enwiki-excerpt.xml.bz2 --vocab_size 4000 --output data/demo-vocab.txt
run tf-bert prepare --input data/enwiki-excerpt.xml.bz2 --vocab data/demo-vocab.txt --output_dir data/demo \
  --max_seq_length 64 --validation_fraction 0.05
run tf-bert inspect data/demo
run tf-bert pretrain --config configs/bert-tiny-demo.yaml
run tf-bert fill-mask runs/bert-tiny-demo/model "Paris is the [MASK] of France."
run tf-bert fill-mask runs/bert-tiny-demo/model "At the end [MASK] the war."

echo
echo "done in $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s"
echo "the curve        runs/bert-tiny-demo/report.png"
echo "the model        runs/bert-tiny-demo/model (opens in transformers too)"
echo "TensorBoard      .venv/bin/tensorboard --logdir runs, then open http://localhost:6006"
