package main

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
)

// prosodyConfig has what one needs to chat with an archive, and nothing that slows it: no TLS, no limits, accounts in files. The format's
// arguments are the folder, the client's port and PostgreSQL's.
const prosodyConfig = `data_path = "%[1]s"
log = { warn = "%[1]s/prosody.log" }
interfaces = { "127.0.0.1" }
c2s_ports = { %[2]s }
c2s_direct_tls_ports = {}
modules_enabled = { "disco", "mam", "register", "roster", "saslauth", "smacks" }
modules_disabled = { "s2s", "offline", "tls" }
authentication = "internal_plain"
allow_registration = true
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
default_archive_policy = true
archive_expires_after = "never"
storage = { default = "internal", archive = "sql" }
sql = { driver = "PostgreSQL", database = "bench", username = "bench", password = "", host = "127.0.0.1", port = %[3]s }
VirtualHost "localhost"
`

func startProsody(ctx context.Context, m *machine, c *cluster, dir string) (*service, string, error) {
	address, port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	config := filepath.Join(dir, "prosody.cfg.lua")
	if err := m.file(config, fmt.Sprintf(prosodyConfig, dir, port, c.port)); err != nil {
		return nil, "", err
	}
	s, err := start(ctx, m.command(context.Background(), dir, "/usr/bin/prosody", "--config", config, "-F"), address, syscall.SIGTERM)
	return s, address, err
}
