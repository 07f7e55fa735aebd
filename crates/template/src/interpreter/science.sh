# The packages for language, sound, pictures and statistics. $1 lists them.
set -eu
printf '%s' "$1" >/tmp/packages.txt
python3 -m pip install --no-cache-dir --no-deps --only-binary :all: --root-user-action ignore \
    --quiet --progress-bar off --requirement /tmp/packages.txt
# Only what has to change: each changed file is stored again.
find /usr/local -xdev '(' -type d ! -perm -777 -o -type f ! -perm -666 ')' -exec chmod a+rwX {} +
