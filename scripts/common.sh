# Sourced by the scripts: sets up what is missing, builds the host tool, and becomes it.
# The caller's arguments are the tool's, with the command in front.
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$repo/scripts/setup" --quiet
. "$repo/target/tools/env.sh"
tool=${CARGO_TARGET_DIR:-$repo/target}/debug/ferrite
quiet=()
# The first build takes a while: let cargo show it.
if [[ -x $tool ]]; then quiet=(--quiet); fi
(cd "$repo" && "${CARGO:-cargo}" build "${quiet[@]}" -p tools)
exec "$tool" "$command" "$@"
