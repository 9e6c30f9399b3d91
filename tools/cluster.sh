#!/bin/sh
# Three nodes on this machine, in ./cluster (or $CLUSTER), until Ctrl-C. Needs nothing but tierce.
set -eu
tierce=${TIERCE:-tierce}
root=${CLUSTER:-./cluster}
mkdir -p "$root"

command_of() { # the command line of node $1
    echo "$tierce serve --workers 1 --data $root/$1" \
        "--listen native=127.0.0.1:7$1 --private 127.0.0.1:8$1" \
        "--join 127.0.0.1:8070 --join 127.0.0.1:8080 --join 127.0.0.1:8090"
}

stop() {
    trap - INT TERM EXIT
    for number in 070 080 090; do
        pid=$(cat "$root/$number.pid" 2>/dev/null) && kill "$pid" 2>/dev/null || true
        rm -f "$root/$number.pid"
    done
    wait
}
trap stop INT TERM EXIT

for number in 070 080 090; do
    # shellcheck disable=SC2046  # the words of a command line
    $(command_of "$number") >"$root/$number.out" 2>"$root/$number.log" &
    echo $! >"$root/$number.pid"
done
for number in 070 080 090; do
    until grep -q "is ready" "$root/$number.out"; do
        kill -0 "$(cat "$root/$number.pid")" 2>/dev/null || {
            cat "$root/$number.log" >&2
            exit 1
        }
        sleep 0.1
    done
done

cat <<END
Three nodes run: http://127.0.0.1:7070, http://127.0.0.1:7080 and http://127.0.0.1:7090.
Their data and logs are in $root. Ctrl-C stops them. In another terminal:

  export TIERCE_URL=http://127.0.0.1:7070
  $tierce cluster status                                 # wait for three nodes
  echo hello > hello.txt
  $tierce put hello.txt                                  # prints the digest; it is on three disks now
  $tierce get DIGEST --url http://127.0.0.1:7080         # from another node
  kill -9 \$(cat $root/090.pid)                           # lose one
  $tierce get DIGEST --url http://127.0.0.1:7080         # still there
  $(command_of 090) &
  $tierce cluster status --watch                         # it comes back, and heals
END
wait
