package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ejabberdConfig has what one needs to chat with an archive, and nothing that slows it: no TLS, no shapers, accounts in Mnesia. The
// format's arguments are the client's port and PostgreSQL's.
const ejabberdConfig = `hosts: [localhost]
loglevel: warning
listen:
  -
    port: %s
    ip: "127.0.0.1"
    module: ejabberd_c2s
    access: all
auth_method: internal
sql_type: pgsql
sql_server: "127.0.0.1"
sql_port: %s
sql_database: bench
sql_username: bench
modules:
  mod_mam:
    db_type: sql
    default: always
  mod_register:
    access: all
    ip_access: all
    registration_watchers: []
  mod_roster: {}
  mod_stream_mgmt: {}
registration_timeout: infinity
`

// startEjabberd runs ejabberd as its ejabberdctl does, but without a node name: no other Erlang node, and no epmd, is needed.
func startEjabberd(ctx context.Context, m *machine, c *cluster, dir string) (*service, string, error) {
	libraries, _ := filepath.Glob("/usr/lib/*/ejabberd-*")
	if len(libraries) == 0 {
		return nil, "", errors.New("ejabberd's library is not in /usr/lib/*/ejabberd-*")
	}
	if _, err := do(c.psql(ctx, "bench", "-f", "/usr/share/ejabberd/sql/pg.sql")); err != nil {
		return nil, "", err
	}
	address, port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	config := filepath.Join(dir, "ejabberd.yml")
	if err := m.file(config, fmt.Sprintf(ejabberdConfig, port, c.port)); err != nil {
		return nil, "", err
	}
	cmd := m.command(context.Background(), dir, "/usr/bin/erl", "+K", "true", "+P", "250000", "-noinput", "-mnesia", "dir", `"`+filepath.Join(dir, "mnesia")+`"`, "-s", "ejabberd")
	cmd.Env = append(cmd.Env, "ERL_LIBS="+filepath.Dir(libraries[0]), "EJABBERD_CONFIG_PATH="+config, "EJABBERD_LOG_PATH="+filepath.Join(dir, "ejabberd.log"),
		"ERL_CRASH_DUMP="+os.DevNull)
	s, err := start(ctx, cmd, address, syscall.SIGTERM)
	return s, address, err
}
