# shellcheck shell=bash
# What scripts/setup, scripts/test and scripts/services share: messages and installing packages.

# Where rustup and the Go archive put their programs; often missing from a non-login shell's PATH.
PATH="$PATH:$HOME/.cargo/bin:/usr/local/go/bin"

# shellcheck disable=SC2034
CACHE_HOME="${XDG_CACHE_HOME:-$HOME/.cache}/tidemill"

have() { command -v "$1" >/dev/null 2>&1; }

# say MESSAGE...: to stderr, named after the script; stdout is for what a caller captures.
say() { echo "${0##*/}: $*" >&2; }

die() {
  say "$*"
  exit 1
}

# as_root COMMAND...: runs it as root, or fails without asking for a password.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    have sudo && sudo -n "$@"
  fi
}

can_apt() { have apt-get && as_root true 2>/dev/null; }

# apt_install PACKAGE...: quiet; refreshes the lists only when the first try fails, as on a bare image.
apt_install() {
  can_apt || return 1
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
  say "installing $* with apt-get"
  as_root "${apt[@]}" install -y --no-install-recommends "$@" </dev/null >/dev/null 2>&1 && return
  as_root "${apt[@]}" update </dev/null >/dev/null 2>&1
  as_root "${apt[@]}" install -y --no-install-recommends "$@" </dev/null >/dev/null
}

# find_java: prints a Java of at least 17, wherever it is.
find_java() {
  local java version
  for java in "${JAVA_HOME:-/nowhere}/bin/java" "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
    [ -x "$java" ] || continue
    version="$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')"
    [ "${version:-0}" -ge 17 ] && echo "$java" && return
  done
  return 1
}
