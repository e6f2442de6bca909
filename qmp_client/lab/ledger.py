"""What a client knows of the jobs that it sent or waits for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qmp_client.lab.wire import Job, Message, Progress, Rejection, Result


class Ledger:
    """Jobs, and the answers to them in whatever order and however often they come."""

    def __init__(self, jobs: Iterable[Job] = (), ids: Iterable[str] = ()) -> None:
        """``jobs`` are to be sent; of ``ids`` only the results are wanted."""
        self.jobs: Mapping[str, Job] = {job.id: job for job in jobs}
        self.ids = [*self.jobs, *ids]
        self.results: dict[str, Result] = {}
        self.rejections: dict[str, Rejection] = {}
        self.progress: dict[str, Progress] = {}

    @property
    def open(self) -> list[str]:
        """Jobs of which neither a result nor a rejection is known."""
        return [job for job in self.ids if job not in self.results and job not in self.rejections]

    @property
    def unheard(self) -> list[Job]:
        """Jobs that have to be sent: no host has said yet that it has them.

        A job may so be sent twice, and to two hosts, when the connection breaks at a bad moment. It is measured twice
        then, and the first result counts; not sending it again could mean that it is never measured.
        """
        return [self.jobs[job] for job in self.open if job in self.jobs and job not in self.progress]

    def take(self, message: Message) -> bool:
        """Enter an answer; say whether it is news. The first result of a job stays, and is worth more than a no."""
        match message:
            case Result(job=job) if job in self.ids and job not in self.results:
                self.rejections.pop(job, None)
                self.results[job] = message
            case Rejection(job=job) if job in self.ids and job not in self.results and job not in self.rejections:
                self.rejections[job] = message
            case Progress(job=job) if job in self.ids and self.progress.get(job) != message:
                self.progress[job] = message
            case _:
                return False
        return True
