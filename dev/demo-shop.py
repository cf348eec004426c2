"""The demo's shop in a MongoDB: what an application would do. Run by dev/demo; says what it did in one line.

    demo-shop.py URI load | sell | accident | summary
"""

import hashlib
import random
import sys

import pymongo
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

CITIES = ["Aachen", "Bergen", "Cork", "Delft", "Évora"]


def orders(first, count):
    dice = random.Random(first)
    for n in range(first, first + count):
        yield {"_id": n, "city": dice.choice(CITIES), "cents": dice.randrange(100, 100_000), "items": [{"sku": n % 97, "n": 1}]}


def load(shop):
    """Orders with an index, users with a validator, and a report over them."""
    shop.orders.insert_many(list(orders(0, 1_500)))
    shop.orders.create_index([("city", 1), ("cents", -1)], name="by_city")
    shop.create_collection("users", validator={"$jsonSchema": {"required": ["mail"]}})
    shop.users.insert_many([{"_id": n, "mail": f"user{n}@example.org"} for n in range(200)])
    shop.create_collection("sales", viewOn="orders", pipeline=[{"$group": {"_id": "$city", "cents": {"$sum": "$cents"}}}])
    return "1,500 orders with an index, 200 users with a validator, a view"


def sell(shop):
    """More of everything, after the dump: only the oplog has it."""
    first = shop.orders.count_documents({})
    shop.orders.insert_many(list(orders(first, 300)))
    shop.orders.update_many({"_id": {"$lt": 100}}, {"$set": {"state": "sent"}, "$push": {"items": {"sku": 1, "n": 2}}})
    shop.orders.delete_many({"_id": {"$gte": 1_450, "$lt": 1_500}})
    shop.users.update_one({"_id": 7}, {"$set": {"name": "Seven"}})
    return "300 orders came in, 100 were sent, 50 cancelled, a user changed a name: after the dump, so only the oplog has it"


def accident(shop):
    shop.orders.drop()
    return f"db.orders.drop(): {shop.orders.count_documents({})} orders left"


def summary(shop):
    """Documents and a digest over their bytes, whatever their order."""
    raw = shop.orders.with_options(CodecOptions(document_class=RawBSONDocument))
    total = sum(int.from_bytes(hashlib.sha256(one.raw).digest(), "little") for one in raw.find())
    names = ",".join(sorted(shop.orders.index_information()))
    return f"{shop.orders.count_documents({})} orders, indexes {names}, digest {total % 2**256:064x}"


def main():
    uri, what = sys.argv[1:]
    shop = pymongo.MongoClient(uri, serverSelectionTimeoutMS=10_000).shop
    print({"load": load, "sell": sell, "accident": accident, "summary": summary}[what](shop))


main()
