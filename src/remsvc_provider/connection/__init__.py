"""The Airflow connection of type ``remsvc``: what it says, how it is looked up, and the form for it."""
