#!/usr/bin/env bash
# `make demo`: the main job on real input, in the words a user would type.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

say kb --text index
say kb --text search --limit 3 "Which torque in newton metres for the bolts of a Limpet?"
say kb --text search --limit 3 "How do I verify the X-Thrum-Signature of a webhook in Python?"
say kb --text search --limit 3 "My grandmother passed away. How much time can I take?"

case "${KB_EMBEDDING__PROVIDER:-hash}" in
hash)
    cat <<'END'

These hits come from feature hashing: they share words with the question, not meaning. Nothing
was downloaded for it. For a real model:
    make demo EMBEDDER=local                            all-MiniLM-L6-v2 on this machine's CPU
    OPENAI_API_KEY=... make demo EMBEDDER=openai        text-embedding-3-small
END
    ;;
esac

cat <<'END'

Next:  .venv/bin/kb status                     where every document is
       .venv/bin/kb eval                       how well 74 golden questions are answered
       .venv/bin/kb why hostile/picture.md     why one of them cannot be found
       .venv/bin/kb dev                        the Dagster UI on http://127.0.0.1:3000
END
