"""The doctor: tries everything that this server depends on, and says what is wrong and what to do (docs/doctor.md)."""
