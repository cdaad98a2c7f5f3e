// Folder asks for permission to send and to delete, shares a folder, and takes it back when the sharing ends: a partner's backend in
// TypeScript.
//
//   npm ci && npx tsc
//   LETTERLOCK_AGENT=http://127.0.0.1:9090 LETTERLOCK_SECRET=$(cat home/secret) node built/folder.js

type Authorization = { id: string; url?: string; state: "waiting" | "granted" | "refused" | "failed"; detail?: string };
type Sent = { id: string; seq: number };

/** Makes a call of the agent that runs beside this backend. */
async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const answer = await fetch(process.env.LETTERLOCK_AGENT + path, {
    method,
    headers: { Authorization: "Bearer " + process.env.LETTERLOCK_SECRET, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 204) return undefined as T;
  const json = await answer.json();
  if (!answer.ok) throw new Error(json.detail);
  return json as T;
}

let asked = await call<Authorization>("POST", "/authorizations", { actions: ["send", "delete"], pick: true, for: "owner-2" });
console.log(asked.url); // send the person there
while (asked.state === "waiting") {
  await new Promise((done) => setTimeout(done, 200));
  asked = await call<Authorization>("GET", "/authorizations/" + asked.id);
}
const grant: string = asked.id;

const sent = await call<Sent>("POST", "/messages", {
  grant,
  idempotency_key: "folder-1",
  card: { kind: "folder", title: "Holiday pictures", url: "https://folders.example/s#k3y", details: [{ label: "files", value: "42" }] },
});
console.log("sent", sent.id);

await call<void>("DELETE", `/messages/${sent.id}?grant=${grant}`);
console.log("taken back", sent.id);
