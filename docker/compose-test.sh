#!/usr/bin/env bash
# The service as docker-compose.yml runs it, from the build to the end: ready, a key, a portrait enrolled, a restart,
# identified, the cache killed, identified again, a stop in time.
#
#   docker/compose-test.sh PORTRAIT
#
# COMPOSE (docker compose) is the command; COMPOSE_FILE may name more files; TEST_PORT (18000) must be free.
set -euo pipefail
portrait=$(realpath "$1")
cd "$(dirname "$0")/.."
COMPOSE=${COMPOSE:-docker compose}
TEST_PORT=${TEST_PORT:-18000}
export COMPOSE_PROJECT_NAME=shrinkface-test SERVICE_PUBLISH=127.0.0.1:$TEST_PORT
url=http://127.0.0.1:$TEST_PORT

compose() { $COMPOSE "$@"; }
inside() { compose exec -T shrinkface "$@"; }
fail() { printf 'FAILED: %s\n' "$1" >&2; exit 1; }
passed() { printf 'ok: %s\n' "$1"; }

cleanup() {
  status=$?
  if [ "$status" -ne 0 ]; then compose logs --tail 50 || true; fi
  compose down --volumes --timeout 30 >/dev/null 2>&1 || true
  exit "$status"
}
trap cleanup EXIT

wait_healthy() {
  local container=$1
  for _ in $(seq 180); do
    case $(docker inspect -f '{{.State.Health.Status}}' "$container") in
      healthy) return ;;
      unhealthy) fail "$container is unhealthy" ;;
    esac
    sleep 1
  done
  fail "$container was not healthy in time"
}

# One face is found, and it is Grace's.
identify() {
  curl -fsS -H "X-API-Key: $key" -F image=@"$portrait" "$url/identify" | python3 -c '
import json, sys
(face,) = json.load(sys.stdin)["faces"]
decision = face["decision"]
assert decision["identified"] and decision["person_id"] == "grace", decision
' || fail "$1"
  passed "$1"
}

compose build shrinkface
compose up -d shrinkface redis
service=$(compose ps -q shrinkface)
cache=$(compose ps -q redis)
wait_healthy "$service"
wait_healthy "$cache"
passed "service and cache are healthy"

[ "$(inside id -u)" = 10001 ] || fail "the service does not run as 10001"
inside grep -q '^CapEff:[[:space:]]*0000000000000000$' /proc/1/status || fail "the service has capabilities"
inside grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/1/status || fail "the service may gain privileges"
if inside sh -c ': > /opt/written' 2>/dev/null; then fail "the root file system can be written to"; fi
inside sh -c ': > /tmp/written && rm /tmp/written' || fail "/tmp cannot be written to"
passed "uid 10001, no capabilities, no new privileges, read-only root"

code=$(curl -s -o /dev/null -w '%{http_code}' -F image=@"$portrait" "$url/identify")
[ "$code" = 401 ] || fail "without a key /identify answers $code"
key=$(inside shrinkface keys create --scope admin | tr -d '\r\n')
sleep 2
passed "no entry without a key"

curl -fsS -o /dev/null -H "X-API-Key: $key" -F image=@"$portrait" -F person_id=grace -F name=Grace "$url/enroll"
passed "enrolled"

compose restart --timeout 60 shrinkface
wait_healthy "$service"
identify "identified after a restart"
identify "identified from the cache"
metrics=$(curl -fsS "$url/metrics")
grep -Eq '^shrinkface_cache_lookups_total\{outcome="hit"\} [1-9]' <<<"$metrics" || fail "the cache had no hit"
passed "the cache has been used"

compose kill redis
identify "identified without the cache"

started=$(date +%s)
compose stop --timeout 60 shrinkface
taken=$(($(date +%s) - started))
code=$(docker inspect -f '{{.State.ExitCode}}' "$service")
[ "$code" = 0 ] || fail "the service ended with $code"
[ "$taken" -lt 30 ] || fail "the service took $taken s to end"
passed "SIGTERM ends it with 0 after $taken s"
