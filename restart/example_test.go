package restart_test

import (
	"context"
	"errors"
	"expvar"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/segue-go/segue/listener"
	"github.com/segue-go/segue/restart"
)

// Metrics of upgrades. The predecessor has the final figures of an upgrade when it is about to end: its successor's are those that
// are scraped, so what is to outlive a process has to be pushed, or go the way of Generation.State.
func ExampleObserver() {
	upgrades, rollbacks, adopted := expvar.NewInt("upgrades"), expvar.NewInt("rollbacks"), expvar.NewInt("connections_adopted")
	generation, err := restart.New(restart.Options{Observer: restart.Observer{
		UpgradeStarted: func(*restart.Report) { upgrades.Add(1) },
		UpgradeFailed: func(report *restart.Report) {
			if errors.Is(report.Err, restart.ErrRolledBack) {
				rollbacks.Add(1)
			}
		},
		Drained: func(report *restart.Report) {
			log.Printf("%d connections moved, with a pause of %v at most; %d were cut", report.Adopted, report.PauseMax, report.Cut)
		},
		Adopted: func(connections int) { adopted.Add(int64(connections)) },
	}})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := generation.Listen(context.Background(), "web", "tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	generation.HTTP(ln, &http.Server{})
	if err := generation.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A TCP proxy whose connections move with each upgrade, the client's and its upstream's together.
func ExampleGeneration_Relays() {
	generation, err := restart.New(restart.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := generation.Listen(context.Background(), "proxy", "tcp", ":7000")
	if err != nil {
		log.Fatal(err)
	}
	pairs := generation.Relays("pair", restart.RelayOptions{IdleTimeout: time.Hour})
	generation.Conns(ln, func(ctx context.Context, client *listener.Conn) {
		dialed, err := net.DialTimeout("tcp", "127.0.0.1:6379", 5*time.Second)
		if err != nil {
			return
		}
		upstream, err := generation.Own(dialed)
		if err != nil {
			_ = dialed.Close()
			return
		}
		pairs.Serve(ctx, client, upstream)
	})
	if err := generation.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
