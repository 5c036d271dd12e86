#!/usr/bin/env bash
# Builds Horovod against the TensorFlow of a virtual environment (default: .venv) and installs it there.
#
#   scripts/build_horovod.sh [VENV]
#
# Horovod has no wheels on PyPI, and its last source release compiles against TensorFlow 2.20 once
# xla_mpi_ops.cc, which includes a header that TensorFlow no longer ships, is out of the source list. MPI is
# built in where mpicxx is found; Gloo always is. The wheel is kept in .cache/wheels and in the user's cache
# directory, keyed by all that it depends on.
#
# Environment: HOROVOD_GPU_OPERATIONS=NCCL builds for GPUs; it needs CUDA's nvcc and NCCL: that of HOROVOD_NCCL_HOME,
# the system's (libnccl-dev) or the one that tensorflow[and-cuda] installs. Horovod's other build variables are passed on;
# CXX names the compiler; WITHOUT_HOROVOD=1 skips the build.
set -euo pipefail

HOROVOD_VERSION=0.28.1
CMAKE_VERSION=3.31.10 # installed where the system's is missing or unfit; Gloo's build files need one below 4

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${1:-$root/.venv}/bin/python
log=$root/.cache/build_horovod.log

# Runs a command with its output in the log; a failure points there.
quietly() {
  "$@" >>"$log" 2>&1 || fail "$* failed"
}

fail() {
  echo "Horovod: $1; see ${log#"$PWD"/}, or set WITHOUT_HOROVOD=1 to go on without multi-process training" >&2
  exit 1
}

# A cmake that Horovod's build files understand: 3.13 or newer, below 4.
find_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | sed -n 's/^cmake version \([0-9]*\.[0-9]*\).*/\1/p' || true)
  case $version in
    3.1[3-9] | 3.[2-9][0-9]) command -v cmake ;;
    *)
      quietly "$python" -m pip install --no-deps --target "$work/cmake" "cmake==$CMAKE_VERSION"
      echo "$work/cmake/cmake/data/bin/cmake"
      ;;
  esac
}

# Prints the directory name under which a wheel is cached: everything that the compiled library depends on.
cache_key() {
  "$python" - "$HOROVOD_VERSION" "$mpi" "$gpu" <<'PY'
import platform, sys
from importlib.metadata import version

horovod, mpi, gpu = sys.argv[1:]
python = f"cp{sys.version_info.major}{sys.version_info.minor}"
libc = "".join(platform.libc_ver())
print(f"horovod-{horovod}-tf{version('tensorflow')}-{python}-{platform.machine()}-{libc}-{mpi}-{gpu}")
PY
}

# Says where NCCL is, for a build with it: the PyPI package has no link that a linker looks for, and no static library.
find_nccl() {
  local package
  [[ -z ${HOROVOD_NCCL_HOME:-} && ! -e /usr/include/nccl.h ]] || return 0
  package=$("$python" -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])' 2>>"$log") ||
    fail "NCCL not found: install tensorflow[and-cuda] or the system's libnccl-dev, or set HOROVOD_NCCL_HOME"
  mkdir -p "$work/nccl/lib"
  ln -s "$package/include" "$work/nccl/include"
  ln -s "$package/lib/libnccl.so.2" "$work/nccl/lib/libnccl.so"
  # Found at run time from where Horovod's own library lies, in any environment.
  export HOROVOD_NCCL_HOME=$work/nccl HOROVOD_NCCL_LINK=SHARED LDFLAGS="${LDFLAGS:-} -Wl,-rpath,\$ORIGIN/../../nvidia/nccl/lib"
}

# Installs the wheel of a cache directory, if there is one and its library loads.
install_from() {
  local wheels=("$1"/horovod-*.whl)
  [[ -f ${wheels[0]} ]] &&
    "$python" -m pip install -qq --no-deps --force-reinstall "${wheels[0]}" >>"$log" 2>&1 &&
    "$python" -c 'import horovod.tensorflow' >>"$log" 2>&1
}

# A copy that appears under its final name only when it is complete; other checkouts may be reading there.
keep_in() {
  mkdir -p "$1" && cp "$work"/wheel/horovod-*.whl "$1/.partial.$$" &&
    mv "$1/.partial.$$" "$1/$(basename "$work"/wheel/horovod-*.whl)"
}

build() {
  local source=$work/horovod-$HOROVOD_VERSION sources=$work/horovod-$HOROVOD_VERSION/horovod/tensorflow/CMakeLists.txt
  echo "Horovod: building $HOROVOD_VERSION (about 3 minutes on 2 cores; $mpi, $gpu)"
  quietly "$python" -m pip download --no-deps --no-build-isolation --no-binary horovod -d "$work" \
    "horovod==$HOROVOD_VERSION"
  tar -xzf "$work/horovod-$HOROVOD_VERSION.tar.gz" -C "$work"
  grep -q xla_mpi_ops.cc "$sources" || fail "xla_mpi_ops.cc is not in its source list"
  sed -i '/xla_mpi_ops\.cc/d' "$sources"
  HOROVOD_CMAKE=$(find_cmake)
  # MAKEFLAGS of a calling make would be taken for a wish to compile one file at a time.
  MAKEFLAGS=-j$(nproc)
  export HOROVOD_CMAKE MAKEFLAGS HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_GLOO=1
  if [[ $mpi == gloo ]]; then export HOROVOD_WITHOUT_MPI=1; else export HOROVOD_WITH_MPI=1; fi
  quietly "$python" -m pip wheel --no-deps --no-build-isolation -w "$work/wheel" "$source"
}

if [[ ${WITHOUT_HOROVOD:-} == 1 ]]; then
  echo "Horovod: skipped (WITHOUT_HOROVOD=1); training runs in a single process"
  exit 0
fi
if ! command -v "${CXX:-g++}" >/dev/null; then
  echo "Horovod: no C++ compiler (${CXX:-g++}) found, so it is not built; training runs in a single process"
  exit 0
fi

mkdir -p "$root/.cache"
: >"$log"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# cffi is wanted for PyTorch alone.
export HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1
mpi=gloo
if command -v mpicxx >/dev/null; then mpi=gloo+mpi-$(mpicxx -show | cksum | cut -d' ' -f1); fi
gpu=cpu
if [[ -n ${HOROVOD_GPU_OPERATIONS:-} ]]; then
  command -v nvcc >/dev/null || fail "nvcc not found: HOROVOD_GPU_OPERATIONS needs the CUDA toolkit on PATH"
  gpu=$HOROVOD_GPU_OPERATIONS-cuda$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
  if [[ $HOROVOD_GPU_OPERATIONS == NCCL ]]; then find_nccl; fi
fi
key=$(cache_key 2>>"$log") || fail "$python has no TensorFlow to build against"
caches=("$root/.cache/wheels/$key")
user_cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
if [[ -n $user_cache ]]; then caches+=("$user_cache/tf_bert/wheels/$key"); fi

for cache in "${caches[@]}"; do
  if install_from "$cache"; then exit 0; fi
done
build
for cache in "${caches[@]}"; do
  # A home that cannot be written costs the next checkout a build, nothing more.
  keep_in "$cache" 2>>"$log" || true
done
install_from "$work/wheel" || fail "the built library does not load"
