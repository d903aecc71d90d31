#!/bin/sh
# Writes the secrets that compose.yaml needs into .env in the project's folder. What is there already stays.
set -eu
umask 077
file="$(dirname "$0")/../../.env"
touch "$file"
for name in SECRET_KEY POSTGRES_PASSWORD; do
    grep -q "^$name=." "$file" || echo "$name=$(head -c 36 /dev/urandom | od -An -tx1 | tr -d ' \n')" >> "$file"
done
echo "Secrets are in $(cd "$(dirname "$file")" && pwd)/.env: keep a copy of it where the backups are."
