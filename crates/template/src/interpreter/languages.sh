# Kernels for R and Java, and fonts that have the signs of East Asian scripts. $1 lists
# Python packages.
set -eu
export DEBIAN_FRONTEND=noninteractive
# What sets Java up links its manual there.
mkdir -p /usr/share/man/man1
apt-get update -qq
apt-get install -qq --no-install-recommends \
    fonts-noto-cjk openjdk-21-jdk-headless r-base-core r-cran-irkernel >/dev/null
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/*.log
printf '%s' "$1" >/tmp/packages.txt
python3 -m pip install --no-cache-dir --no-deps --only-binary :all: --root-user-action ignore \
    --quiet --progress-bar off --requirement /tmp/packages.txt
# Only what has to change: each changed file is stored again.
find /usr/local -xdev '(' -type d ! -perm -777 -o -type f ! -perm -666 ')' -exec chmod a+rwX {} +
settings=$(python3 -c 'import matplotlib; print(matplotlib.get_data_path())')/matplotlibrc
echo 'font.sans-serif: DejaVu Sans, Noto Sans CJK JP, sans-serif' >>"$settings"
rm -rf /home/user/.cache/matplotlib
su user -c 'cd && MPLBACKEND=agg python3 -c "import matplotlib.font_manager"'
