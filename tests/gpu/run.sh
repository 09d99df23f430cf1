#!/bin/sh
# Runs this bundle on a GPU: run.sh tests|bench|soak|sanitize|all [--out DIR] [--python PY]; --help says more.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python3}
before=
for argument in "$@"; do
    if [ "$before" = --python ]; then python=$argument; fi
    case $argument in --python=*) python=${argument#--python=} ;; esac
    before=$argument
done
if ! command -v "$python" >/dev/null; then
    echo "run.sh: there is no $python; name a Python 3.9 or later that has torch: --python PY" >&2
    exit 1
fi
PYTHONPATH="$here/driver" exec "$python" -B -m gpu_bundle --bundle "$here" "$@"
