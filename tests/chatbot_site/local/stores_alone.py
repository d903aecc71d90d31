"""Run by tests as a program: the supervisor with PostgreSQL and Valkey only, which start quicker than the whole server."""

import os
import sys
from pathlib import Path

from chatbot_site.local.folder import DataFolder
from chatbot_site.local.processes import Interrupts, StopRequested
from chatbot_site.local.refusal import Refusal
from chatbot_site.local.running import start_services
from chatbot_site.local.supervisor import Supervisor, say
from chatbot_site.settings.environment import PROJECT_DIR, Environment

interrupts = Interrupts()
interrupts.install()
folder = DataFolder(Path(os.environ["DATA_DIR"]))
try:
    folder.open(interrupts)
    with Supervisor(folder, interrupts=interrupts, project=PROJECT_DIR) as supervisor:
        made = start_services(supervisor, Environment(database_url="", redis_url=""))
        folder.write_environment(made)
        say("READY")
        supervisor.watch()
except Refusal as refusal:
    sys.exit(str(refusal))
except StopRequested:
    say("Stopped.")
