"""What the server as a whole keeps: to which environment its database belongs."""

from __future__ import annotations

from django.db import models


class DatabaseStamp(models.Model):
    """One row: the name of the environment that made this database. It travels with every dump."""

    id = models.SmallIntegerField(primary_key=True, default=1, editable=False)
    environment = models.CharField(max_length=40)
    stamped_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="a_database_has_one_stamp")]

    def __str__(self) -> str:
        return self.environment
