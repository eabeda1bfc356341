// clickhouse-go over HTTP: main HOST:PORT. Prints OK when all answers were right.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

const table = "client_go"

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
}

func check(ok bool, what string, args ...any) {
	if !ok {
		must(fmt.Errorf(what, args...))
	}
}

func open(user, password string, method clickhouse.CompressionMethod) *sql.DB {
	return clickhouse.OpenDB(&clickhouse.Options{
		Addr:        []string{os.Args[1]},
		Protocol:    clickhouse.HTTP,
		Auth:        clickhouse.Auth{Database: "default", Username: user, Password: password},
		Compression: &clickhouse.Compression{Method: method},
		DialTimeout: 5 * time.Second,
	})
}

func main() {
	ctx := context.Background()
	db := open("default", "", clickhouse.CompressionNone)
	must(db.PingContext(ctx))
	var one uint8
	must(db.QueryRowContext(ctx, "SELECT 1").Scan(&one))
	check(one == 1, "SELECT 1 gave %d", one)

	_, err := db.ExecContext(ctx, "DROP TABLE IF EXISTS "+table)
	must(err)
	_, err = db.ExecContext(ctx, "CREATE TABLE "+table+" (a Int64, s String) ENGINE = Memory")
	must(err)
	methods := []clickhouse.CompressionMethod{clickhouse.CompressionNone, clickhouse.CompressionLZ4, clickhouse.CompressionZSTD,
		clickhouse.CompressionGZIP, clickhouse.CompressionDeflate, clickhouse.CompressionBrotli}
	for _, method := range methods {
		d := open("default", "", method)
		tx, err := d.Begin()
		must(err)
		stmt, err := tx.PrepareContext(ctx, "INSERT INTO "+table+" (a, s)")
		must(err)
		for i := 0; i < 5000; i++ {
			_, err = stmt.Exec(int64(i), fmt.Sprintf("row %d", i))
			must(err)
		}
		must(tx.Commit())
		rows, err := d.QueryContext(ctx, "SELECT number FROM numbers(100000)")
		must(err)
		n, sum := 0, uint64(0)
		for rows.Next() {
			var v uint64
			must(rows.Scan(&v))
			n++
			sum += v
		}
		must(rows.Err())
		check(n == 100000 && sum == 4999950000, "method %v: %d rows, sum %d", method, n, sum)
		must(d.Close())
	}
	var count, sum uint64
	must(db.QueryRowContext(ctx, "SELECT count(), toUInt64(sum(a)) FROM "+table).Scan(&count, &sum))
	check(count == uint64(5000*len(methods)) && sum == uint64(12497500*len(methods)), "stored %d rows, sum %d", count, sum)

	// 64 at once.
	var wg sync.WaitGroup
	failures := make(chan error, 64)
	for i := 0; i < 64; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 0; n < 10; n++ {
				var got int64
				if err := db.QueryRowContext(ctx, fmt.Sprintf("SELECT toInt64(%d)", i*100+n)).Scan(&got); err != nil {
					failures <- err
					return
				}
				if got != int64(i*100+n) {
					failures <- fmt.Errorf("asked for %d, got %d", i*100+n, got)
					return
				}
			}
		}()
	}
	wg.Wait()
	close(failures)
	for err := range failures {
		must(err)
	}

	// Errors, another user, a cancelled context.
	_, err = db.ExecContext(ctx, "SELECT nope")
	check(err != nil, "no error for an unknown column")
	alice := open("alice", "secret", clickhouse.CompressionNone)
	var user string
	must(alice.QueryRowContext(ctx, "SELECT currentUser()").Scan(&user))
	check(user == "alice", "currentUser() is %s", user)
	wrong := open("alice", "wrong", clickhouse.CompressionNone)
	check(wrong.PingContext(ctx) != nil, "a wrong password was accepted")
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err = db.ExecContext(short, "SELECT sum(sleepEachRow(0.05)) FROM numbers(1000) SETTINGS max_block_size = 1")
	cancel()
	check(err != nil, "a cancelled query ended without an error")
	must(db.QueryRowContext(ctx, "SELECT 1").Scan(&one))
	_, err = db.ExecContext(ctx, "DROP TABLE "+table)
	must(err)
	fmt.Println("OK")
}
