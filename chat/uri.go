package chat

import "strings"

// The MIMI URIs of letterlock. HOST is the authority of the server's public URL.
//
//	mimi://HOST/u/HANDLE             an account
//	mimi://HOST/d/HANDLE/DEVICE      a device: the identity of a person's MLS credential
//	mimi://HOST/r/CONVERSATION       a conversation
//	mimi://HOST/a/PARTNER/GRANT      a partner's agent under one grant: the identity of its leaf

// AccountURI is the address of a person.
func AccountURI(host, handle string) string { return "mimi://" + host + "/u/" + handle }

// DeviceURI is the identity of a person's leaf.
func DeviceURI(host, handle string, d DeviceID) string {
	return "mimi://" + host + "/d/" + handle + "/" + d.String()
}

// ConversationURI is the address of a conversation, the room URI of MIMI content.
func ConversationURI(host string, c ConversationID) string {
	return "mimi://" + host + "/r/" + c.String()
}

// AgentURI is the identity of an agent's leaf.
func AgentURI(host, partner string, g GrantID) string {
	return "mimi://" + host + "/a/" + partner + "/" + g.String()
}

// Identity is who stands behind a leaf: a device of a person, or a partner's agent under one grant.
type Identity struct {
	Host    string
	Handle  string   // of a device; empty for an agent
	Device  DeviceID // of a device
	Partner string   // of an agent; empty for a device
	Grant   GrantID  // of an agent
}

// IsAgent reports whether the identity is a partner's agent.
func (id Identity) IsAgent() bool { return id.Partner != "" }

// String writes the identity as the URI it was read from.
func (id Identity) String() string {
	if id.IsAgent() {
		return AgentURI(id.Host, id.Partner, id.Grant)
	}
	return DeviceURI(id.Host, id.Handle, id.Device)
}

// ParseIdentity reads the identity of an MLS credential, strictly: what it accepts, String writes back byte for byte.
func ParseIdentity(uri []byte) (Identity, error) {
	bad := func() (Identity, error) {
		return Identity{}, Errorf(Invalid, "identity %q is neither a device nor an agent URI", clip(string(uri)))
	}
	rest, ok := strings.CutPrefix(string(uri), "mimi://")
	if !ok || len(uri) > 512 {
		return bad()
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 4 || CheckHost(parts[0]) != nil {
		return bad()
	}
	id := Identity{Host: parts[0]}
	switch parts[1] {
	case "d":
		id.Handle = parts[2]
		if CheckHandle(id.Handle) != nil || id.Device.UnmarshalText([]byte(parts[3])) != nil {
			return bad()
		}
	case "a":
		id.Partner = parts[2]
		if CheckPartner(id.Partner) != nil || id.Grant.UnmarshalText([]byte(parts[3])) != nil {
			return bad()
		}
	default:
		return bad()
	}
	return id, nil
}
