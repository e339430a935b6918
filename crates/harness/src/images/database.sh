#!/bin/sh
# Starts PostgreSQL, after making the database on an empty volume. The environment is that of the public postgres image:
# POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS, PGDATA. Two differences:
# PGDATA lies below the volume, not on its top; and the superuser's password is set at every start, not the first only.
# There is little beside this shell: no sed, no cat.
set -eu
umask 077

fail() {
    echo "commpool-database: $*" >&2
    exit 1
}

# The text $1 between quotes $2, with those inside it doubled.
quoted() {
    rest=$1 out=
    while :; do
        case $rest in
            *"$2"*) out=$out${rest%%"$2"*}$2$2 rest=${rest#*"$2"} ;;
            *) break ;;
        esac
    done
    printf '%s' "$2$out$rest$2"
}

# Carries out statements from standard input, one a line, on the data in $1, before anybody can connect.
alone() {
    postgres --single -D "$1" -c exit_on_error=true -c log_checkpoints=off -c log_statement=none postgres >/dev/null
}

case ${1:-} in
    '' | -*) set -- postgres "$@" ;;
    postgres) ;;
    *) exec "$@" ;;
esac
shift

: "${PGDATA:=/var/lib/postgresql/data/pgdata}" "${POSTGRES_USER:=postgres}"
: "${POSTGRES_DB:=$POSTGRES_USER}" "${POSTGRES_PASSWORD:=}"
if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
    [ -r "$POSTGRES_PASSWORD_FILE" ] || fail "POSTGRES_PASSWORD_FILE: $POSTGRES_PASSWORD_FILE cannot be read"
    IFS= read -r POSTGRES_PASSWORD <"$POSTGRES_PASSWORD_FILE" || :
fi
user=$(quoted "$POSTGRES_USER" '"') password=$(quoted "$POSTGRES_PASSWORD" "'")

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    [ -n "$POSTGRES_PASSWORD" ] || fail "there is no database in $PGDATA, and to make one POSTGRES_PASSWORD_FILE must be set"
    # made beside and moved into place as a whole: whatever ends this half way, the next start begins anew
    new=$PGDATA.new
    rm -rf "$new"
    # shellcheck disable=SC2086 # several options in one variable
    initdb --pgdata="$new" --username="$POSTGRES_USER" --auth-local=trust --auth-host=reject ${POSTGRES_INITDB_ARGS:-}
    {
        echo '# Whoever is inside the container is the database'\''s owner anyway; all others prove who they are.'
        echo 'local all all trust'
        echo 'local replication all trust'
        echo 'host all all all scram-sha-256'
        echo 'host replication all all scram-sha-256'
    } >"$new/pg_hba.conf"
    if [ "$POSTGRES_DB" != postgres ]; then
        echo "create database $(quoted "$POSTGRES_DB" '"');" | alone "$new"
    fi
    sync -f "$new"
    mv -T "$new" "$PGDATA" || fail "PGDATA=$PGDATA must be a folder below the volume that is not there yet, or empty"
    sync -f "$PGDATA"
fi
if [ -n "$POSTGRES_PASSWORD" ]; then
    echo "alter role $user with login password $password;" | alone "$PGDATA"
fi
unset POSTGRES_PASSWORD password

exec postgres -D "$PGDATA" -c 'listen_addresses=*' "$@"
