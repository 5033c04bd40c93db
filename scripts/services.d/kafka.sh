# shellcheck shell=bash
# A one-node Apache Kafka in KRaft mode, broker and controller in one JVM; jars by Maven.

KAFKA_VERSION=4.3.1 # its broker runs on Java 17 and later
LOG4J_VERSION=2.25.4 # the one that kafka_2.13 brings
KAFKA_HOME="$CACHE/$KAFKA_VERSION"

install() {
  find_java >/dev/null || apt_install openjdk-17-jre-headless || apt_install default-jre-headless || true
  find_java >/dev/null || unavailable "needs Java 17 or later, and it could not be installed"
  [ -d "$KAFKA_HOME/blank" ] && return
  have mvn || apt_install maven || unavailable "needs Maven (mvn) to get the broker's jars, and it could not be installed"

  local work="$KAFKA_HOME.$$"
  rm -rf "$work"
  mkdir -p "$work"
  write_pom >"$work/pom.xml"
  say "kafka: getting $KAFKA_VERSION with Maven (once)"
  if ! (cd "$work" && mvn -q -B -ntp org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory=lib -DincludeScope=runtime) </dev/null >"$DIR/failed.log" 2>&1; then
    rm -rf "$work"
    unavailable "Maven could not get org.apache.kafka:kafka_2.13:$KAFKA_VERSION; see $DIR/failed.log"
  fi
  write_log4j >"$work/log4j2.properties"
  format "$work"
  rm -rf "$KAFKA_HOME"
  mv "$work" "$KAFKA_HOME"
}

# format HOME: an empty formatted log folder, kept to be copied at each start: it saves a JVM's run.
format() {
  DATA="$1" PORT=9092 CONTROLLER_PORT=9093 write_properties "$1/blank" >"$1/format.properties"
  "$(find_java)" -cp "$1/lib/*" "-Dlog4j2.configurationFile=$1/log4j2.properties" kafka.tools.StorageTool \
    format --cluster-id dGlkZW1pbGwtdGVzdHMtMQ --config "$1/format.properties" >"$DIR/failed.log" 2>&1 ||
    unavailable "could not format Kafka's storage; see $DIR/failed.log"
}

start() {
  if [ ! -d "$DATA/log" ]; then
    cp -r "$KAFKA_HOME/blank" "$DATA/log"
    CONTROLLER_PORT="$(free_port)" write_properties "$DATA/log" >"$DATA/server.properties"
  fi
  spawn "$(find_java)" -Xms512m -Xmx512m -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -Djava.awt.headless=true \
    "-Dlog4j2.configurationFile=$KAFKA_HOME/log4j2.properties" -cp "$KAFKA_HOME/lib/*" \
    kafka.Kafka "$DATA/server.properties"
}

# The port answers before the broker serves; this line comes after it is unfenced.
ready() { grep -qs 'Kafka Server started' "$DATA/kafka.log"; }

exports() { echo "TIDEMILL_TEST_KAFKA=127.0.0.1:$PORT"; }

write_properties() {
  cat <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$CONTROLLER_PORT
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$PORT,CONTROLLER://127.0.0.1:$CONTROLLER_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$PORT
log.dirs=$1

# One node: every internal topic has one copy, and few partitions, for a quick start.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4

# Tests make their topics; a misspelt one is an error. Nothing they write is too old or too new to keep.
auto.create.topics.enable=false
log.retention.ms=-1
log.retention.bytes=-1
log.message.timestamp.after.max.ms=9223372036854775807
log.cleaner.dedupe.buffer.size=16777216

# No waiting: for the group's other members, for a dead producer's transaction, for a topic's deletion,
# for the session of the broker that kill -9 ended.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
file.delete.delay.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
EOF
}

write_log4j() {
  cat <<'EOF'
rootLogger.level = INFO
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{ISO8601} %p %m (%c)%n
EOF
}

write_pom() {
  cat <<EOF
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemill</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$LOG4J_VERSION</version></dependency>
  </dependencies>
</project>
EOF
}
