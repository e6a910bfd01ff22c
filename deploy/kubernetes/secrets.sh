#!/bin/sh
# Puts the passwords of deploy/env.example's variables into the cluster, as the secrets that the
# manifests and values.yaml name; each holds what its pods need, and no more. From the root of the
# repository, with .env filled in:
#
#   set -a; . ./.env; set +a; sh deploy/kubernetes/secrets.sh
#
# Run again, it replaces them. With a server of your own: POSTGRES_HOST=db.example.com:5432.
set -eu

host="${POSTGRES_HOST:-postgres:5432}"
url() { printf 'postgresql://%s:%s@%s/%s' "$1" "$2" "$host" "$3"; }

# Values come on standard input: as arguments, every process could see them.
secret() {
    kubectl create secret generic "$1" --namespace kb --from-env-file=/dev/stdin \
        --dry-run=client --output=yaml | kubectl apply --filename=-
}

: "${MIGRATOR_PASSWORD:?}" "${WRITER_PASSWORD:?}" "${READER_PASSWORD:?}" "${CALLER_PASSWORD:?}"
: "${ARCHIVER_PASSWORD:?}" "${BACKUP_PASSWORD:?}" "${DAGSTER_PASSWORD:?}"
: "${UI_USER:?}" "${UI_PASSWORD_HASH:?}"

secret kb-postgres <<END
POSTGRES_PASSWORD=${POSTGRES_PASSWORD:-}
MIGRATOR_PASSWORD=$MIGRATOR_PASSWORD
WRITER_PASSWORD=$WRITER_PASSWORD
READER_PASSWORD=$READER_PASSWORD
CALLER_PASSWORD=$CALLER_PASSWORD
ARCHIVER_PASSWORD=$ARCHIVER_PASSWORD
BACKUP_PASSWORD=$BACKUP_PASSWORD
DAGSTER_PASSWORD=$DAGSTER_PASSWORD
END

secret kb-migrate <<END
KB_MIGRATION_DATABASE_URL=$(url kb_migrator "$MIGRATOR_PASSWORD" kb)
END

secret kb-dagster <<END
postgresql-password=$DAGSTER_PASSWORD
END

secret kb-login <<END
UI_USER=$UI_USER
UI_PASSWORD_HASH=$UI_PASSWORD_HASH
END

{
    cat <<END
KB_DATABASE_URL=$(url kb_writer "$WRITER_PASSWORD" kb)
KB_READ_DATABASE_URL=$(url kb_reader "$READER_PASSWORD" kb)
KB_CALLER_DATABASE_URL=$(url kb_caller "$CALLER_PASSWORD" kb)
KB_ARCHIVE_DATABASE_URL=$(url kb_archiver "$ARCHIVER_PASSWORD" kb)
KB_BACKUP_DATABASE_URL=$(url kb_backup "$BACKUP_PASSWORD" kb)
KB_DAGSTER_DATABASE_URL=$(url dagster "$DAGSTER_PASSWORD" dagster)
END
    # Passed on if they are set.
    for name in OPENAI_API_KEY KB_CACHE__URL KB_BACKUP_KEY KB_BACKUP_IDENTITY KB_ALERT_WEBHOOK_URL \
        AWS_ENDPOINT_URL AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
        eval "value=\${$name:-}"
        [ -z "$value" ] || printf '%s=%s\n' "$name" "$value"
    done
} | secret kb-runs
