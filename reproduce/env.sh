# Sourced by every script: finds or makes the Python environment and sets PYTHON and ROOT.
# $CXR_PYTHON, else the active conda or venv interpreter, else .venv made once from requirements.lock.

_stop() { echo "$*" >&2; exit 2; }

for _tool in dirname cmp flock rm mkdir cp cat; do
    command -v "$_tool" >/dev/null || _stop "PATH has no $_tool: set PATH to the system's folders, such as /usr/bin:/bin."
done
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# Prints "complete" if the interpreter has the packages of requirements.txt in versions it allows,
# else what is wrong. Imports none of them: TensorFlow alone takes seconds.
_packages_of() {
    "$1" -I - "$ROOT/requirements.txt" 2>&1 <<'PY'
import re
import sys
from importlib.metadata import PackageNotFoundError, version

def number(text):
    return [int(part) for part in re.findall(r"\d+", text)[:3]]

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit("Python {}.{}".format(*sys.version_info[:2]) + ", and the suite needs 3.11 to 3.13")
for line in open(sys.argv[1], encoding="utf-8"):
    wanted = re.match(r"([\w-]+)>=([\d.]+),<([\d.]+)", line)
    if not wanted:
        continue
    name, low, high = wanted.groups()
    try:
        found = version(name)
    except PackageNotFoundError:
        # GPU and CPU builds, and OpenCV with windows, go by names of their own
        others = {"tensorflow": ["tensorflow-cpu"], "opencv-python-headless": ["opencv-python"]}
        for other in others.get(name, []):
            try:
                found = version(other)
                break
            except PackageNotFoundError:
                pass
        else:
            sys.exit(f"no {name}")
    if not number(low) <= number(found) < number(high):
        sys.exit(f"{name} {found}, and the suite needs {name}>={low},<{high}")
print("complete")
PY
}
_has_packages() { [ -x "$1" ] && [ "$(_packages_of "$1")" = complete ]; }

_base_python() {
    local name
    for name in python3.12 python3.13 python3.11 python3 python; do
        if "$name" -c 'import sys, ensurepip, venv
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    return 1
}

_make_venv() {
    local base log=$ROOT/.venv/install.log
    base=$(_base_python) || _stop "No Python 3.11, 3.12 or 3.13 with the venv module was found:" \
        "install one (on Debian and Ubuntu: apt install python3 python3-venv) or set CXR_PYTHON to it."
    if [ -e "$ROOT/.venv" ] && [ ! -e "$ROOT/.venv/made-by-env.sh" ]; then
        if [ -x "$ROOT/.venv/bin/python" ]; then
            _stop "$ROOT/.venv was not made by this suite and lacks its packages:" \
                "run '$ROOT/.venv/bin/python -m pip install -r requirements.txt' or remove the folder."
        fi
        _stop "$ROOT/.venv was not made by this suite and has no bin/python:" \
            "move it away, and the next run makes one; or set CXR_PYTHON to a Python."
    fi
    echo "Making the Python environment $ROOT/.venv (once; about 2 GB, a few minutes) ..." >&2
    # The mark comes first and the stamp last: whatever is interrupted between them is made anew.
    { rm -rf "$ROOT/.venv" && mkdir "$ROOT/.venv" && touch "$ROOT/.venv/made-by-env.sh"; } 2>/dev/null ||
        _stop "Cannot write $ROOT/.venv: make the folder writable or set CXR_PYTHON."
    "$base" -m venv "$ROOT/.venv" >"$log" 2>&1 &&
        "$ROOT/.venv/bin/python" -m pip install --disable-pip-version-check --require-hashes \
            -r "$ROOT/requirements.lock" >>"$log" 2>&1 ||
        _stop "Installing the packages failed; is there a network and 2 GB of free disk?" \
            "The reason stands at the end of $log; the next run starts over."
    cp "$ROOT/requirements.lock" "$ROOT/.venv/requirements.lock"
}

_find_python() {
    local candidate amiss
    if [ -n "${CXR_PYTHON:-}" ]; then
        PYTHON=$(command -v "$CXR_PYTHON") || _stop "CXR_PYTHON is '$CXR_PYTHON', which is no program: set it to a Python 3.11 to 3.13, or unset it."
        amiss=$(_packages_of "$PYTHON") || true
        [ "$amiss" = complete ] && return
        case $amiss in
            "no "* | *"and the suite needs"*) ;;
            *) _stop "CXR_PYTHON is $PYTHON, which is no Python: set it to a Python 3.11 to 3.13, or unset it." ;;
        esac
        _stop "CXR_PYTHON is $PYTHON, which has $amiss:" \
            "run '$PYTHON -m pip install -r $ROOT/requirements.txt', or unset it."
    fi
    for candidate in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
        PYTHON=$candidate/bin/python
        [ -n "$candidate" ] && _has_packages "$PYTHON" && return
    done
    PYTHON=$ROOT/.venv/bin/python
    cmp -s "$ROOT/requirements.lock" "$ROOT/.venv/requirements.lock" && return
    [ ! -e "$ROOT/.venv/made-by-env.sh" ] && _has_packages "$PYTHON" && return
    # Two scripts started together must not both make it: the second waits, then finds it made.
    exec 9>"$ROOT/.venv.lock" || _stop "Cannot write in $ROOT: make it writable or set CXR_PYTHON."
    flock 9
    cmp -s "$ROOT/requirements.lock" "$ROOT/.venv/requirements.lock" || _make_venv
    exec 9>&-
}

_find_python
export PYTHON ROOT
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
