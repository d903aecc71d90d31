"""The ground floor: errors, outgoing HTTP, Redis, health and logs; what every other room stands on."""
