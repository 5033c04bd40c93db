# shellcheck shell=bash
# One service as a process: its state files, its port, its life. Sourced by scripts/services;
# works on $NAME, $DIR (state), $DATA (temporary folder) and $PORT.

READY_SECONDS=90
STOP_SECONDS=20

remember() { printf '%s\n' "$2" >"$DIR/$1"; }
recall() { cat "$DIR/$1" 2>/dev/null || true; }
forget() { (cd "$DIR" && rm -f "$@"); }

# lock: one start or stop at a time. The services themselves close fd 9 (see spawn).
lock() {
  exec 9>"$STATE/lock"
  ! have flock || flock -w 1800 9 || die "another scripts/services holds $STATE/lock"
}

# erase: the data goes, and with it everything known of the process.
erase() {
  [ -z "$DATA" ] || rm -rf "$DATA"
  forget pid port data
  DATA='' PORT=''
}

# spawn COMMAND...: in a session of its own, so Ctrl-C in the caller's terminal leaves it to `stop`.
spawn() {
  local detach=()
  ! have setsid || detach=(setsid)
  [ ! -f "$DATA/$NAME.log" ] || mv "$DATA/$NAME.log" "$DATA/$NAME.log.before"
  "${detach[@]}" "$@" >"$DATA/$NAME.log" 2>&1 </dev/null 9>&- &
  remember pid "$!"
}

# alive: is the recorded process ours still? A reused pid is not: our folder is on its command line.
# (A zombie has no command line.)
alive() {
  local pid
  pid="$(recall pid)"
  [ -n "$pid" ] && [ -n "$DATA" ] && kill -0 "$pid" 2>/dev/null && [[ "$(command_line "$pid")" == *"$DATA"* ]]
}

command_line() {
  if [ -d /proc/self ]; then
    tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null || true
  else
    ps -o args= -p "$1" 2>/dev/null || true
  fi
}

await_ready() {
  local end=$((SECONDS + READY_SECONDS))
  sleep 0.1 # between fork and exec the command line is still ours
  while [ $SECONDS -lt $end ]; do
    alive || return 1
    ready && return
    sleep 0.1
  done
  return 1
}

await_death() {
  local end=$((SECONDS + $1))
  while alive; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.05
  done
}

stop() {
  alive || return 0
  local pid
  pid="$(recall pid)"
  kill "$pid" 2>/dev/null || true
  await_death "$STOP_SECONDS" && return
  kill -9 "$pid" 2>/dev/null || true
  await_death 10
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

port_is_free() {
  ! port_answers "$1" && ! grep -qs ":$(printf %04X "$1") 00000000:0000 0A" /proc/net/tcp /proc/net/tcp6
}

# free_port: below the ephemeral range, not from it as binding port 0 would. While a killed broker is
# down its clients keep dialling; the kernel could give a dialler that very port as its own, and the
# broker could not come back.
free_port() {
  local low=32768 port
  read -r low _ 2>/dev/null </proc/sys/net/ipv4/ip_local_port_range || true
  [ "$low" -gt 12000 ] || low=32768
  while :; do
    port=$((10000 + (RANDOM * 32768 + RANDOM) % (low - 10000)))
    [ "$port" = "$PORT" ] || ! port_is_free "$port" || break
  done
  echo "$port"
}
