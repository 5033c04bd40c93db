# shellcheck shell=bash
# A Schema Registry: Apicurio Registry 2.6, which speaks Confluent's API under /apis/ccompat/v7; its zip by
# Maven. One JVM with an H2 database in the data folder, so a restart keeps its schemas. (Confluent's own is not
# on Maven Central; Apicurio 3 publishes no runnable archive there; there is no Karapace on PyPI.)

APICURIO_VERSION=2.6.13.Final
APICURIO_HOME="$CACHE/$APICURIO_VERSION"
# A cold start is 10 s of CPU; on a machine that builds at the same time, minutes.
# shellcheck disable=SC2034 # process.sh reads it
READY_SECONDS=300

install() {
  find_java >/dev/null || apt_install openjdk-17-jre-headless || apt_install default-jre-headless || true
  find_java >/dev/null || unavailable "needs Java 17 or later, and it could not be installed"
  [ -d "$APICURIO_HOME" ] && return
  have mvn || apt_install maven || unavailable "needs Maven (mvn) to get the registry, and it could not be installed"
  have unzip || apt_install unzip || unavailable "needs unzip, and it could not be installed"

  local work="$APICURIO_HOME.$$" name="apicurio-registry-app-$APICURIO_VERSION"
  rm -rf "$work"
  mkdir -p "$work/home"
  say "registry: getting Apicurio Registry $APICURIO_VERSION with Maven (once, 140 MB)"
  if ! mvn -q -B -ntp org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    "-Dartifact=io.apicurio:apicurio-registry-app:$APICURIO_VERSION:zip:all" "-DoutputDirectory=$work" \
    </dev/null >"$DIR/failed.log" 2>&1 || ! unzip -q "$work/$name-all.zip" -d "$work/home" >>"$DIR/failed.log" 2>&1; then
    rm -rf "$work"
    unavailable "Maven could not get io.apicurio:apicurio-registry-app:$APICURIO_VERSION; see $DIR/failed.log"
  fi
  rm -rf "$APICURIO_HOME"
  mv "$work/home" "$APICURIO_HOME"
  rm -rf "$work"
}

start() {
  spawn "$(find_java)" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true \
    "-Djava.io.tmpdir=$DATA" "-Dquarkus.datasource.jdbc.url=jdbc:h2:file:$DATA/registry;WRITE_DELAY=0" \
    -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$PORT" -Dquarkus.log.level=WARN \
    -jar "$APICURIO_HOME/apicurio-registry-app-$APICURIO_VERSION-runner.jar"
}

# The port answers before the API does.
ready() {
  port_answers "$PORT" || return 1
  local line
  exec 3<>"/dev/tcp/127.0.0.1/$PORT" || return 1
  printf 'GET /apis/ccompat/v7/subjects HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
  read -r -t 5 line <&3 || line=''
  exec 3>&-
  [[ "$line" == *" 200 "* ]]
}

exports() { echo "TIDEMILL_TEST_REGISTRY=http://127.0.0.1:$PORT/apis/ccompat/v7"; }
