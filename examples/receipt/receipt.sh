#!/bin/sh
# Receipt asks for permission to send and sends the receipt of a payment: a partner's backend with curl alone.
#
#   LETTERLOCK_AGENT=http://127.0.0.1:9090 LETTERLOCK_SECRET=$(cat home/secret) sh receipt.sh
set -eu

# call METHOD PATH [JSON] makes a call of the agent that runs beside this backend. The secret is read from a file that only we can read,
# since others see a command's arguments.
headers=$(mktemp)
trap 'rm -f "$headers"' EXIT
printf 'Authorization: Bearer %s\nContent-Type: application/json\n' "$LETTERLOCK_SECRET" > "$headers"
call() {
	curl --silent --show-error --fail-with-body --request "$1" --header "@$headers" ${3:+--data "$3"} "$LETTERLOCK_AGENT$2"
}

# field NAME picks a text out of one line of JSON. Use jq where you have it.
field() {
	sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | sed 's/\\u0026/\&/g'
}

asked=$(call POST /authorizations '{"actions": ["send"], "pick": true, "for": "account-9"}')
grant=$(printf '%s' "$asked" | field id)
printf '%s\n' "$asked" | field url # send the person there
while [ "$(call GET "/authorizations/$grant" | field state)" = waiting ]; do
	sleep 0.2
done

sent=$(call POST /messages '{"grant": "'"$grant"'", "idempotency_key": "receipt-1", "card": {"kind": "receipt", "title": "Lunch, your half",
	"subtitle": "12.40 EUR", "url": "https://bank.example/r#r-2210", "details": [{"label": "paid on", "value": "3 May"}]}}')
printf 'sent %s\n' "$(printf '%s' "$sent" | field id)"
