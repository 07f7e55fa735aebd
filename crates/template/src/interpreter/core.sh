# Python with the packages that most analyses need, and kernels for Python, JavaScript,
# TypeScript and Bash. $1 lists the packages.
set -eu
printf '%s' "$1" >/tmp/packages.txt
# Everything is pinned, dependencies too, and nothing is compiled.
python3 -m pip install --no-cache-dir --no-deps --only-binary :all: --root-user-action ignore \
    --quiet --progress-bar off --requirement /tmp/packages.txt
python3 -m bash_kernel.install --prefix /usr/local >/dev/null
# Only what has to change: each changed file is stored again.
find /usr/local -xdev '(' -type d ! -perm -777 -o -type f ! -perm -666 ')' -exec chmod a+rwX {} +
# The first look at the fonts takes seconds: it is done here.
su user -c 'cd && MPLBACKEND=agg python3 -c "import matplotlib.font_manager"'
