package restart

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifyServing tells a service manager that started us with NOTIFY_SOCKET (systemd, Type=notify) which process to watch
// from now on, and that the service is up. Without one it does nothing.
func notifyServing(log *slog.Logger) {
	notify(log, fmt.Sprintf("%s\nMAINPID=%d\n", daemon.SdNotifyReady, os.Getpid()))
}

func notifyStopping(log *slog.Logger) { notify(log, daemon.SdNotifyStopping) }

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot notify the service manager", "error", err)
	}
}
