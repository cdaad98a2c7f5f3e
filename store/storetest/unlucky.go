package storetest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// unlucky has PostgreSQL itself refuse every third commit that wrote, with a serialization failure (40001), after everything in it was
// done. A sequence counts the commits, since it alone does not go back with what is undone.
const unlucky = `CREATE SEQUENCE unlucky;
CREATE FUNCTION unlucky() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF current_setting('letterlock.lucky', true) IS DISTINCT FROM txid_current()::text THEN
		IF nextval('unlucky') % 3 = 1 THEN
			RAISE EXCEPTION 'unlucky' USING ERRCODE = '40001';
		END IF;
		PERFORM set_config('letterlock.lucky', txid_current()::text, true);
	END IF;
	RETURN NULL;
END $$;
DO $$ DECLARE t text; BEGIN
	FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'goose_db_version' LOOP
		EXECUTE format('CREATE CONSTRAINT TRIGGER unlucky AFTER INSERT OR UPDATE OR DELETE ON %I DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION unlucky()', t);
	END LOOP;
END $$`

// Unlucky is Postgres where every third write transaction is refused at its commit, and must be run again.
func Unlucky(t testing.TB) (url string) {
	t.Helper()
	url = Migrated(t)
	run := func(statement string) {
		t.Helper()
		c, err := pgx.Connect(context.Background(), url)
		if err == nil {
			defer c.Close(context.Background())
			_, err = c.Exec(context.Background(), statement, pgx.QueryExecModeSimpleProtocol)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	run(unlucky)
	t.Cleanup(func() { run(`DROP FUNCTION unlucky CASCADE; DROP SEQUENCE unlucky`) })
	return url
}
