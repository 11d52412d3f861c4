"""A process that is a Kafka cluster: librdkafka's mock, which lives as long as the producer it belongs to.

Prints the addresses of its brokers and then stands until it is ended. A process of its own can be stopped like one.
"""

import sys
import time

from confluent_kafka import Producer


def main() -> None:
    owner = Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "unused"})
    brokers = owner.list_topics(timeout=10).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    sys.stdin.close()
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
