package account
import ("testing";"os";"fmt";"letterlock/chat")
func TestGenSeeds(t *testing.T){
 os.MkdirAll("testdata/fuzz/FuzzToken",0o755); os.MkdirAll("testdata/fuzz/FuzzAccountOf",0o755)
 w:=newWorld(t); a:=w.signedUp("alice")
 os.WriteFile("testdata/fuzz/FuzzToken/good",[]byte(fmt.Sprintf("go test fuzz v1\nstring(%q)\n",token{account:chat.NewAccountID()}.String())),0o644)
 os.WriteFile("testdata/fuzz/FuzzToken/short",[]byte("go test fuzz v1\nstring(\"AAAA\")\n"),0o644)
 os.WriteFile("testdata/fuzz/FuzzAccountOf/create",[]byte(fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n",a.entry)),0o644)
 os.WriteFile("testdata/fuzz/FuzzAccountOf/cut",[]byte(fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n",a.entry[:40])),0o644)
}
