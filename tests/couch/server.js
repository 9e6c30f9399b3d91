// A database server that speaks CouchDB's HTTP, in memory, for tests/procs/test_couch.py.
const express = require("express");
const PouchDB = require("pouchdb-core")
  .plugin(require("pouchdb-adapter-memory"))
  .plugin(require("pouchdb-adapter-http"))
  .plugin(require("pouchdb-mapreduce"))
  .plugin(require("pouchdb-replication"))
  .defaults({ adapter: "memory" });

const app = express();
app.use(require("express-pouchdb")(PouchDB, { inMemoryConfig: true, mode: "minimumForPouchDB" }));
const server = app.listen(0, "127.0.0.1", () => console.log("listening " + server.address().port));
