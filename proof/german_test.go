package proof

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// TestGermanIsWhole reads the files that make verdicts and wants a German sentence for every English one, with the same verbs in the same order.
func TestGermanIsWhole(t *testing.T) {
	used := map[string]bool{}
	for _, name := range []string{"verdict.go", "tell.go", "words.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				said(n, used)
			case *ast.CompositeLit:
				if id, ok := n.Type.(*ast.Ident); ok && (id.Name == "message" || id.Name == "count") {
					for _, e := range n.Elts {
						literal(e, used)
					}
				}
			}
			return true
		})
	}
	for _, w := range []string{"revoked", "replaced", "send", "read", "delete"} { // values of fields
		used[w] = true
	}
	verb := regexp.MustCompile(`%[a-z]`)
	for english := range used {
		g, ok := german[english]
		if !ok {
			t.Errorf("no German for %q", english)
		} else if !slices.Equal(verb.FindAllString(english, -1), verb.FindAllString(g, -1)) {
			t.Errorf("other verbs in the German of %q: %q", english, g)
		}
	}
	for english := range german {
		if !used[english] {
			t.Errorf("German for %q, which nobody says", english)
		}
	}
	if len(used) < 60 {
		t.Errorf("found %d sentences only", len(used))
	}
}

// said collects the literals that a call says.
func said(n *ast.CallExpr, used map[string]bool) {
	name := ""
	switch f := n.Fun.(type) {
	case *ast.SelectorExpr:
		name = f.Sel.Name
	case *ast.Ident:
		name = f.Name
	}
	switch name {
	case "say", "limit", "finding", "unless", "unlessErased", "translate", "word":
		literal(n.Args[0], used)
	case "allowed":
		literal(n.Args[len(n.Args)-1], used)
	}
}

func literal(e ast.Expr, used map[string]bool) {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		if s, err := strconv.Unquote(l.Value); err == nil {
			used[s] = true
		}
	}
}
