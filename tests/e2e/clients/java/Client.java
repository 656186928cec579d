import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own Java client as an unchanged application: produces the records of a file, or writes what
 * it consumes to one. The job is a JSON object, the only argument; the file format is that of
 * tests/e2e/records. Exit codes: 0 done, 3 the client reported an error, 4 time ran out.
 */
public class Client {
    static final int ERROR = 3;
    static final int TIMEOUT = 4;

    public static void main(String[] args) throws Exception {
        JsonNode job = new ObjectMapper().readTree(args[0]);
        int code = 0;
        try {
            code = switch (job.get("mode").asText()) {
                case "produce" -> produce(job);
                case "share" -> share(job);
                default -> consume(job);
            };
        } catch (Exception e) {
            Throwable cause = e;
            while (cause.getCause() != null) {
                cause = cause.getCause();
            }
            System.err.println("error: " + cause);
            code = ERROR;
        }
        System.exit(code);
    }

    static Properties properties(JsonNode job) {
        Properties p = new Properties();
        p.put("bootstrap.servers", job.get("bootstrap").asText());
        job.get("properties").properties().forEach(f -> p.put(f.getKey(), f.getValue().asText()));
        return p;
    }

    static int produce(JsonNode job) throws Exception {
        Properties p = properties(job);
        int timeout = job.get("timeout_ms").asInt();
        p.put("key.serializer", ByteArraySerializer.class.getName());
        p.put("value.serializer", ByteArraySerializer.class.getName());
        p.put("compression.type", job.get("codec").asText());
        p.put("enable.idempotence", job.get("idempotent").asText());
        p.put("linger.ms", "20");
        p.put("delivery.timeout.ms", String.valueOf(timeout));
        p.put("request.timeout.ms", String.valueOf(Math.min(timeout - 1000, 30_000)));
        int size = job.get("transaction").asInt();
        int abortEvery = job.get("abort_every").asInt();
        String topic = job.get("topic").asText();
        if (size > 0) {
            p.put("transactional.id", topic);
        }
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p);
                DataInputStream in = new DataInputStream(new BufferedInputStream(Files.newInputStream(Path.of(job.get("file").asText())), 1 << 20))) {
            if (size > 0) {
                producer.initTransactions();
            }
            for (int i = 0; ; i++) {
                in.mark(1);
                if (in.read() < 0) {
                    break;
                }
                in.reset();
                if (size > 0 && i % size == 0) {
                    producer.beginTransaction();
                }
                sent.add(producer.send(read(in, topic)));
                if (size > 0 && (i + 1) % size == 0) {
                    producer.flush();
                    if (abortEvery > 0 && i / size % abortEvery == 1) {
                        producer.abortTransaction();
                    } else {
                        producer.commitTransaction();
                    }
                }
            }
            producer.flush();
            for (Future<RecordMetadata> f : sent) {
                f.get();
            }
        }
        return 0;
    }

    static int consume(JsonNode job) throws Exception {
        Properties p = properties(job);
        p.put("key.deserializer", ByteArrayDeserializer.class.getName());
        p.put("value.deserializer", ByteArrayDeserializer.class.getName());
        p.put("group.id", job.get("group").asText());
        p.put("auto.offset.reset", "earliest");
        p.put("isolation.level", job.get("isolation").asText());
        int count = job.get("count").asInt();
        long deadline = System.nanoTime() + job.get("timeout_ms").asLong() * 1_000_000;
        int n = 0;
        try (DataOutputStream out = new DataOutputStream(new BufferedOutputStream(Files.newOutputStream(Path.of(job.get("file").asText()))));
                KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(p)) {
            consumer.subscribe(List.of(job.get("topic").asText()));
            while (n < count) {
                if (System.nanoTime() > deadline) {
                    System.err.println("error: " + n + " of " + count + " records in time");
                    return TIMEOUT;
                }
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    write(out, r);
                    n++;
                }
            }
        }
        return 0;
    }

    /** Reads as a member of a share group (KIP-932), which acknowledges what it got at its next poll. */
    static int share(JsonNode job) throws Exception {
        Properties p = properties(job);
        p.put("key.deserializer", ByteArrayDeserializer.class.getName());
        p.put("value.deserializer", ByteArrayDeserializer.class.getName());
        p.put("group.id", job.get("group").asText());
        int count = job.get("count").asInt();
        long deadline = System.nanoTime() + job.get("timeout_ms").asLong() * 1_000_000;
        int n = 0;
        try (DataOutputStream out = new DataOutputStream(new BufferedOutputStream(Files.newOutputStream(Path.of(job.get("file").asText()))));
                KafkaShareConsumer<byte[], byte[]> consumer = new KafkaShareConsumer<>(p)) {
            consumer.subscribe(List.of(job.get("topic").asText()));
            while (n < count) {
                if (System.nanoTime() > deadline) {
                    System.err.println("error: " + n + " of " + count + " records in time");
                    return TIMEOUT;
                }
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    write(out, r);
                    n++;
                }
            }
        }
        return 0;
    }

    static ProducerRecord<byte[], byte[]> read(DataInputStream in, String topic) throws IOException {
        int partition = in.readInt();
        in.readLong();
        long timestamp = in.readLong();
        byte[] key = field(in);
        byte[] value = field(in);
        List<Header> headers = new ArrayList<>();
        for (int n = in.readInt(); n > 0; n--) {
            String name = new String(field(in), StandardCharsets.UTF_8);
            headers.add(new RecordHeader(name, field(in)));
        }
        return new ProducerRecord<>(topic, partition, timestamp < 0 ? null : timestamp, key, value, headers);
    }

    static void write(DataOutputStream out, ConsumerRecord<byte[], byte[]> r) throws IOException {
        out.writeInt(r.partition());
        out.writeLong(r.offset());
        out.writeLong(r.timestamp());
        field(out, r.key());
        field(out, r.value());
        Header[] headers = r.headers().toArray();
        out.writeInt(headers.length);
        for (Header h : headers) {
            field(out, h.key().getBytes(StandardCharsets.UTF_8));
            field(out, h.value());
        }
    }

    static byte[] field(DataInputStream in) throws IOException {
        int n = in.readInt();
        return n < 0 ? null : in.readNBytes(n);
    }

    static void field(DataOutputStream out, byte[] b) throws IOException {
        out.writeInt(b == null ? -1 : b.length);
        if (b != null) {
            out.write(b);
        }
    }
}
