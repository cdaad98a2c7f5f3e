// Film asks a person for permission to write to a friend of theirs, and sends a film recommendation: a partner's backend in Go.
//
//	LETTERLOCK_AGENT=http://127.0.0.1:9090 LETTERLOCK_SECRET=$(cat flimmer/secret) go run ./examples/film
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

// call makes a call of the agent that runs beside this backend.
func call(method, path string, in, out any) {
	body, err := json.Marshal(in)
	check(err)
	r, err := http.NewRequest(method, os.Getenv("LETTERLOCK_AGENT")+path, bytes.NewReader(body))
	check(err)
	r.Header.Set("Authorization", "Bearer "+os.Getenv("LETTERLOCK_SECRET"))
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	check(err)
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		var problem struct{ Detail string }
		json.NewDecoder(answer.Body).Decode(&problem)
		log.Fatal(problem.Detail)
	}
	check(json.NewDecoder(answer.Body).Decode(out))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	var asked struct{ ID, URL, State string }
	call("POST", "/authorizations", map[string]any{"actions": []string{"send"}, "pick": true, "for": "user-17"}, &asked)
	fmt.Println(asked.URL) // send the person there
	for asked.State == "" || asked.State == "waiting" {
		time.Sleep(200 * time.Millisecond)
		call("GET", "/authorizations/"+asked.ID, nil, &asked)
	}
	var sent struct{ ID string }
	call("POST", "/messages", map[string]any{"grant": asked.ID, "idempotency_key": "recommendation-1", "card": map[string]string{
		"kind": "film", "title": "Metropolis", "subtitle": "Fritz Lang, 1927", "url": "https://flimmer.example/w/#metropolis"}}, &sent)
	fmt.Println("sent", sent.ID)
}
