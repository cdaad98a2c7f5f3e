package oauth

import (
	"encoding/json"
	"html/template"
	"net/http"
	"strings"

	"letterlock/chat"
	"letterlock/store"
)

// requestURIPrefix begins every request_uri (RFC 9126 section 2.2).
const requestURIPrefix = "urn:ietf:params:oauth:request_uri:"

// page is what a browser shows that comes to the authorization endpoint: a person consents in their own client, where the keys are.
var page = template.Must(template.New("authorize").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Permission for {{.Partner}}</title></head>
<body><main>
<h1>{{.Partner}} asks for permission</h1>
<p>Nothing is allowed yet. Open your letterlock client and give it the address of this page. On the command line:</p>
<pre>letterlock client authorize '{{.Address}}'</pre>
<p>Your client shows what {{.Partner}} asks for. You can allow less than that, or nothing.</p>
</main></body></html>
`))

// authorize answers a browser that follows an authorization URL. It changes nothing, however often it is opened.
func (s *Service) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, ok := strings.CutPrefix(q.Get("request_uri"), requestURIPrefix)
	if !ok {
		refuse(w, http.StatusBadRequest, "invalid_request", chat.Errorf(chat.Invalid, "request_uri is needed: push the request first"))
		return
	}
	row, _, err := s.request(r.Context(), id)
	if err == nil && (row.Client != q.Get("client_id") || row.Decided != store.OAuthUndecided || row.Expires <= s.Now().UnixMilli()) {
		err = chat.Errorf(chat.Expired, "this request was answered, is over, or is not of this client")
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", err)
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{"request": id, "partner": row.Client})
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	page.Execute(w, map[string]string{"Partner": row.Client, "Address": s.Issuer + r.URL.RequestURI()})
}
