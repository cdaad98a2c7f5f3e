package postgres

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"letterlock/chat"
)

// Unfinished is a table of package move. While it is there, not everything has arrived yet, and no server may start.
const Unfinished = "letterlock_move"

// Hold opens a database for package move, as a single connection that holds it alone: while it lives no server starts. Unlike Open it makes
// no tables.
func Hold(ctx context.Context, address string) (*sql.DB, error) {
	config, err := parse(address)
	if err != nil {
		return nil, err
	}
	if err := inspect(ctx, config.ConnConfig); err != nil {
		return nil, err
	}
	config.ConnConfig.RuntimeParams["statement_timeout"] = "0" // a table is read by one statement
	db := stdlib.OpenDB(*config.ConnConfig, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		err := (&engine{}).prepare(ctx, c)
		if err == nil {
			err = claim(ctx, c)
		}
		if err != nil {
			c.Close(ctx)
		}
		return err
	}))
	db.SetMaxOpenConns(1)
	if err := db.PingContext(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// Finish removes the mark of an unfinished move, if it is the one of this copy.
func Finish(ctx context.Context, address, copy string) error {
	config, err := parse(address)
	if err != nil {
		return err
	}
	c, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return unreachable(config.ConnConfig, err)
	}
	defer c.Close(ctx)
	there, err := unfinished(ctx, c)
	if err != nil || !there {
		return err
	}
	var of string
	if err := c.QueryRow(ctx, `SELECT copy FROM `+Unfinished).Scan(&of); err != nil {
		return err
	}
	if of != copy {
		return chat.Errorf(chat.Exists, "the database holds the unfinished move of something else")
	}
	_, err = c.Exec(ctx, `DROP TABLE `+Unfinished)
	return err
}

func unfinished(ctx context.Context, c *pgx.Conn) (there bool, err error) {
	err = c.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, Unfinished).Scan(&there)
	return there, err
}

// complete refuses a database into which a move is under way.
func complete(ctx context.Context, c *pgx.Conn) error {
	there, err := unfinished(ctx, c)
	if err == nil && there {
		return chat.Errorf(chat.Invalid, "not everything has been moved into this database yet: run letterlock migrate again, which goes on where it stopped")
	}
	return err
}
