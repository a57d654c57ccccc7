import java.io.StringReader;
import java.sql.*;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/** JDBC with its defaults: statements prepared on the server after five uses, batches, transactions, savepoints, COPY.
 *  java -cp postgresql.jar Work.java PORT */
public class Work {
    static String url;

    static Connection connect() throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", "app");
        properties.setProperty("password", "secret");
        return DriverManager.getConnection(url, properties);
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    static void client(int number) throws SQLException {
        try (Connection connection = connect()) {
            try (PreparedStatement twice = connection.prepareStatement("SELECT ? * 2")) {
                for (int round = 0; round < 20; round++) {
                    twice.setInt(1, number * 100 + round);
                    try (ResultSet rows = twice.executeQuery()) {
                        check(rows.next() && rows.getInt(1) == 2 * (number * 100 + round), "twice");
                    }
                }
            }
            connection.setAutoCommit(false);
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc VALUES (?)")) {
                for (int round = 0; round < 10; round++) {
                    insert.setInt(1, number);
                    insert.addBatch();
                }
                check(insert.executeBatch().length == 10, "batch");
            }
            Savepoint savepoint = connection.setSavepoint();
            try (Statement broken = connection.createStatement()) {
                broken.execute("SELECT 1 / 0");
                check(false, "an error");
            } catch (SQLException error) {
                check("22012".equals(error.getSQLState()), error.toString());
                connection.rollback(savepoint);
            }
            try (Statement large = connection.createStatement()) {
                large.setFetchSize(100);
                try (ResultSet rows = large.executeQuery("SELECT * FROM generate_series(1, 1000)")) {
                    int count = 0;
                    while (rows.next()) count++;
                    check(count == 1000, "fetched");
                }
            }
            if (number % 2 == 0) connection.commit(); else connection.rollback();
            connection.setAutoCommit(true);
            connection.setReadOnly(true);
            check(connection.isValid(5), "valid");
        }
    }

    public static void main(String[] arguments) throws Exception {
        url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/app";
        try (Connection connection = connect(); Statement statement = connection.createStatement()) {
            statement.execute("CREATE TABLE jdbc (n int)");
            List<Throwable> failures = new ArrayList<>();
            List<Thread> threads = new ArrayList<>();
            for (int number = 0; number < 6; number++) {
                int own = number;
                Thread thread = new Thread(() -> {
                    try {
                        client(own);
                    } catch (Throwable failure) {
                        synchronized (failures) { failures.add(failure); }
                    }
                });
                thread.start();
                threads.add(thread);
            }
            for (Thread thread : threads) thread.join();
            for (Throwable failure : failures) failure.printStackTrace();
            check(failures.isEmpty(), "clients");
            org.postgresql.copy.CopyManager copy = connection.unwrap(org.postgresql.PGConnection.class).getCopyAPI();
            check(copy.copyIn("COPY jdbc FROM STDIN", new StringReader("7\n8\n")) == 2, "copy");
            try (ResultSet rows = statement.executeQuery("SELECT count(*) FROM jdbc")) {
                check(rows.next() && rows.getInt(1) == 32, "counted");
            }
            try (ResultSet columns = connection.getMetaData().getColumns(null, null, "jdbc", null)) {
                check(columns.next() && "n".equals(columns.getString("COLUMN_NAME")), "metadata");
            }
            statement.execute("DROP TABLE jdbc");
        }
        System.out.println("done");
    }
}
