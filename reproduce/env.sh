# Sourced by every script: finds or makes the Python environment and sets PYTHON and ROOT.
# The interpreter is $CXR_PYTHON, else that of the active venv or conda environment, else that of
# .venv, which is made once from requirements.lock.

_stop() { echo "$*" >&2; exit 2; }

for _tool in dirname cmp flock rm mkdir cp cat; do
    command -v "$_tool" >/dev/null || _stop "PATH has no $_tool: set PATH to the system's folders, such as /usr/bin:/bin."
done
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# Print "complete" if an interpreter can run the suite, else what the doctor finds wrong with it.
# The packages are not imported: TensorFlow alone would take seconds.
_check_python() {
    "$1" -I - "$ROOT" 2>&1 <<'PY'
import sys

root = sys.argv[1]
if sys.version_info < (3, 11):  # too old for the doctor
    sys.exit("problem: Python {}.{}. Use 3.11 to 3.13.".format(*sys.version_info[:2]))
sys.path.insert(0, root)
from reproduce.doctor import machine

requirements = open(root + "/requirements.txt", encoding="utf-8").read()
for finding in (machine.python(), machine.packages(requirements)):
    if finding.state != machine.OK:
        sys.exit("problem: {0.text}. {0.fix}".format(finding))
print("complete")
PY
}
_has_packages() { [ -x "$1" ] && [ "$(_check_python "$1")" = complete ]; }

# Print the first Python that can make a venv.
_base_python() {
    local name
    for name in python3.12 python3.13 python3.11 python3 python; do
        "$name" -c 'import sys, ensurepip, venv
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo "$name" && return
    done
    return 1
}

_make_venv() {
    local base venv=$ROOT/.venv
    base=$(_base_python) || _stop "No Python 3.11, 3.12 or 3.13 with the venv module was found:" \
        "install one (on Debian and Ubuntu: apt install python3 python3-venv) or set CXR_PYTHON to it."
    if [ -e "$venv" ] && [ ! -e "$venv/made-by-env.sh" ]; then
        [ ! -x "$venv/bin/python" ] || _stop "$venv was not made by this suite and lacks its packages:" \
            "run '$venv/bin/python -m pip install -r requirements.txt' or remove the folder."
        _stop "$venv was not made by this suite and has no bin/python:" \
            "move it away, and the next run makes a new one; or set CXR_PYTHON to a Python."
    fi
    echo "Making the Python environment $venv (once; about 2 GB, a few minutes) ..." >&2
    # made-by-env.sh is written first and the copy of requirements.lock last, so that the next run
    # starts over if this one is interrupted
    { rm -rf "$venv" && mkdir "$venv" && touch "$venv/made-by-env.sh"; } 2>/dev/null ||
        _stop "Cannot write $venv: make the folder writable or set CXR_PYTHON."
    {
        "$base" -m venv "$venv" &&
            "$venv/bin/python" -m pip install --disable-pip-version-check --require-hashes \
                -r "$ROOT/requirements.lock"
    } >"$venv/install.log" 2>&1 ||
        _stop "Installing the packages failed. Check the network and that 2 GB of disk are free." \
            "The reason is at the end of $venv/install.log; the next run starts over."
    cp "$ROOT/requirements.lock" "$venv/requirements.lock"
}
_is_made() { cmp -s "$ROOT/requirements.lock" "$ROOT/.venv/requirements.lock"; }

# Set PYTHON to $CXR_PYTHON, or say why it cannot be used.
_use_given_python() {
    local problem
    PYTHON=$(command -v "$CXR_PYTHON") ||
        _stop "CXR_PYTHON is '$CXR_PYTHON', which is not a program: set it to a Python 3.11 to 3.13, or unset it."
    problem=$(_check_python "$PYTHON") || true
    case $problem in
        complete) ;;
        "problem: "*) _stop "CXR_PYTHON is $PYTHON, which cannot run the suite: ${problem#problem: }" ;;
        *) _stop "CXR_PYTHON is $PYTHON, which is not a Python: set it to a Python 3.11 to 3.13, or unset it." ;;
    esac
}

_find_python() {
    local prefix
    if [ -n "${CXR_PYTHON:-}" ]; then
        _use_given_python
        return
    fi
    for prefix in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
        PYTHON=$prefix/bin/python
        [ -n "$prefix" ] && _has_packages "$PYTHON" && return
    done
    PYTHON=$ROOT/.venv/bin/python
    _is_made && return
    [ ! -e "$ROOT/.venv/made-by-env.sh" ] && _has_packages "$PYTHON" && return
    # of two scripts that start together, the second waits here and then finds .venv made
    exec 9>"$ROOT/.venv.lock" || _stop "Cannot write in $ROOT: make it writable or set CXR_PYTHON."
    flock 9
    _is_made || _make_venv
    exec 9>&-
}

_find_python
export PYTHON ROOT
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
